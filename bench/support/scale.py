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
    huge: int
    due: int
    due_beside: int
    sweep_rounds: int
    idle_sweeps: int
    idle_seconds: float
    waiting: int
    naive: int
    http_rounds: int
    create_seconds: float
    run_seconds: float
    late: int
    late_within: float

    def huge_on(self, store: str) -> tuple[int, ...]:
        """Return the size that is asked for by a switch, where a store is meant for it."""
        return (self.huge,) if self.huge and store == "postgres" else ()

    def seconds(self, callers: int) -> float:
        """Return how long one operation is measured with so many callers."""
        return self.many_seconds if callers > 1 else self.one_seconds


FULL: Final = Scale(
    name="full",
    service_rounds=5,
    many_seconds=1.0,
    one_seconds=0.4,
    stored=1_000_000,
    huge=0,
    due=100_000,
    due_beside=40_000,
    sweep_rounds=3,
    idle_sweeps=300,
    idle_seconds=5,
    waiting=100_000,
    naive=10_000,
    http_rounds=5,
    create_seconds=2.5,
    run_seconds=3,
    late=10_000,
    late_within=60,
)

QUICK: Final = Scale(
    name="quick",
    service_rounds=1,
    many_seconds=0.4,
    one_seconds=0.15,
    stored=100_000,
    huge=0,
    due=10_000,
    due_beside=10_000,
    sweep_rounds=1,
    idle_sweeps=50,
    idle_seconds=1.5,
    waiting=5_000,
    naive=1_000,
    http_rounds=1,
    create_seconds=1,
    run_seconds=1.5,
    late=2_000,
    late_within=6,
)
