"""What a store keeps of runs: a record with a heartbeat, beside the events that ADK stores.

A run in flight is one whose record says so and whose heartbeat is fresh. The record of a process
that died grows stale, reads as interrupted from then on, and stands in nobody's way. Time is the
store's own clock, as in `lapse.store.sessions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from lapse.core.keys import SessionKey

if TYPE_CHECKING:
    from lapse.store.records import EventRecord

HEARTBEAT: Final = timedelta(seconds=2)
"""How often a process says of its runs that they live."""

STALE: Final = timedelta(seconds=8)
"""A run whose last heartbeat is older was interrupted: its process died."""

KEPT: Final = timedelta(days=1)
"""How long the record of an ended run is kept, for readers that come back."""


class RunStatus(StrEnum):
    """How a run stands, or how it ended."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as stored.

    Attributes:
        run_id: unique among all sessions.
        key: the session it runs in.
        status: as it reads: one with a stale heartbeat is INTERRUPTED.
        started_at: by the store's clock.
        ended_at: None while it runs.
        cancel_requested: somebody wants it to end; its process sees that at its next heartbeat.
        invocation_id: what ADK calls it in its events; None before the first of them.
        since: the timestamp of its first event, the user's message.
        until: the timestamp of its last event, once it has ended.
        error: what went wrong, in ADK's shape.
    """

    run_id: str
    key: SessionKey
    status: RunStatus
    started_at: datetime
    heartbeat_at: datetime
    ended_at: datetime | None = None
    cancel_requested: bool = False
    invocation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    error: Mapping[str, Any] | None = None

    def at(self, now: datetime) -> RunRecord:
        """Return the record as it reads at a moment."""
        if self.status is RunStatus.RUNNING and self.heartbeat_at <= now - STALE:
            return replace(self, status=RunStatus.INTERRUPTED, ended_at=self.heartbeat_at + STALE)
        return self

    @property
    def in_flight(self) -> bool:
        """Return whether it runs."""
        return self.status is RunStatus.RUNNING


@dataclass(frozen=True, slots=True)
class RunNews:
    """A run's record and the events of the agent that were stored after some event of it."""

    record: RunRecord
    events: Sequence[EventRecord]


class RunStore(Protocol):
    """The part of a store that runs need."""

    async def begin_run(self, key: SessionKey, run_id: str, *, most_of_user: int) -> RunRecord:
        """Record that a run begins, the only one in flight in its session.

        A stale one gives way: it is recorded as interrupted.

        Raises:
            RunInFlightError: another run is in flight in the session; it names it.
            TooManyRunsError: the user has `most_of_user` runs in flight. They are counted as
                the run begins: of two that begin at one instant, both may be let in.
        """
        ...

    async def note_run(self, run_id: str, invocation_id: str, since: datetime) -> None:
        """Record by which invocation, and from when on, a run's events are known."""
        ...

    async def beat_runs(self, run_ids: Sequence[str]) -> Mapping[str, bool]:
        """Refresh the heartbeat of runs; return those still in flight, and if to be cancelled.

        One that is not returned was taken for dead, or went with its session.
        """
        ...

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        *,
        error: Mapping[str, Any] | None = None,
        until: datetime | None = None,
    ) -> bool:
        """Record how a run ended; False when its record says already that it did."""
        ...

    async def cancel_run(self, key: SessionKey, run_id: str) -> RunRecord | None:
        """Ask for the end of a run in flight and return its record; None where it is unknown."""
        ...

    async def find_run(
        self, key: SessionKey, run_id: str | None = None, *, event_id: str | None = None
    ) -> RunRecord | None:
        """Return a session's run by its id, or by one of its events, or both; else its latest."""
        ...

    async def run_news(self, places: Mapping[str, str | None], *, limit: int) -> Sequence[RunNews]:
        """Return of each run what was stored after the event named, or with None from its start.

        At most `limit` events of each, in the order they were stored; from one snapshot, so
        that no event is missing before one that is there, and none comes after a record that
        says the run has ended. Runs that are unknown are left out.
        """
        ...

    async def forget_runs(self, limit: int) -> int:
        """Delete at most `limit` records of runs that ended longer than KEPT ago; how many."""
        ...
