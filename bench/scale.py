"""How much is measured: the whole, or a quick look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes, times in seconds, and rounds."""

    name: str
    service_rounds: int
    many_seconds: float
    one_seconds: float
    stored: int
    due: int
    sweep_rounds: int
    idle_sweeps: int
    idle_seconds: float
    waiting: int
    naive: int
    http_rounds: int
    create_seconds: float
    run_seconds: float

    def seconds(self, callers: int) -> float:
        """Return how long one operation is measured with so many callers."""
        return self.many_seconds if callers > 1 else self.one_seconds


FULL: Final = Scale(
    name="full",
    service_rounds=5,
    many_seconds=1.0,
    one_seconds=0.4,
    stored=1_000_000,
    due=100_000,
    sweep_rounds=3,
    idle_sweeps=300,
    idle_seconds=5,
    waiting=100_000,
    naive=10_000,
    http_rounds=5,
    create_seconds=2.5,
    run_seconds=3,
)

QUICK: Final = Scale(
    name="quick",
    service_rounds=1,
    many_seconds=0.4,
    one_seconds=0.15,
    stored=100_000,
    due=10_000,
    sweep_rounds=1,
    idle_sweeps=50,
    idle_seconds=1.5,
    waiting=5_000,
    naive=1_000,
    http_rounds=1,
    create_seconds=1,
    run_seconds=1.5,
)
