"""How much is measured: the whole, or a quick look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes, times in seconds, and rounds.

    Attributes:
        service_rounds: rounds of all operations of session services.
        many_seconds: how long one operation is measured with many callers.
        one_seconds: how long with one.
        growth_rounds: rounds of operations and idle sweeps, beside few and many stored sessions.
        growth_seconds: how long one operation is measured there.
        stored: how many sessions are stored where there are many.
        huge: more of them on PostgreSQL, by a switch; 0: not measured.
        due: how many of them are drained.
        due_beside: how many while callers go on.
        sweep_rounds: rounds of drains.
        idle_sweeps: sweeps with nothing due, in a round.
        idle_seconds: how long callers are measured without a drain beside them.
        waiting: sessions of one process whose memory is measured.
        naive: sessions of the design that keeps a task for each.
        http_rounds: rounds of servers.
        create_seconds: how long creates over HTTP are measured.
        read_seconds: how long a get or a list over HTTP is.
        run_seconds: how long `/run_sse` is, with each number of connections.
        starts: how often each server is started.
        late: sessions that fall due while replicas sweep.
        late_within: in which time.
    """

    name: str
    service_rounds: int
    many_seconds: float
    one_seconds: float
    growth_rounds: int
    growth_seconds: float
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
    read_seconds: float
    run_seconds: float
    starts: int
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
    service_rounds=4,
    many_seconds=0.9,
    one_seconds=0.4,
    growth_rounds=4,
    growth_seconds=0.5,
    stored=1_000_000,
    huge=0,
    due=100_000,
    due_beside=40_000,
    sweep_rounds=3,
    idle_sweeps=200,
    idle_seconds=5,
    waiting=100_000,
    naive=10_000,
    http_rounds=4,
    create_seconds=2,
    read_seconds=1.2,
    run_seconds=2.5,
    starts=5,
    late=10_000,
    late_within=40,
)

QUICK: Final = Scale(
    name="quick",
    service_rounds=1,
    many_seconds=0.4,
    one_seconds=0.15,
    growth_rounds=1,
    growth_seconds=0.3,
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
    read_seconds=0.5,
    run_seconds=1,
    starts=1,
    late=2_000,
    late_within=6,
)
