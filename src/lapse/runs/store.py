"""What a store keeps of runs: a record with a heartbeat, beside the events that ADK stores.

A run in flight is one whose record says so and whose heartbeat is fresh. The record of a process
that died grows stale, reads as interrupted from then on, and stands in nobody's way. Time is the
store's own clock, as in `lapse.store.sessions`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from lapse.core.errors import RunInFlightError, TooManyRunsError
from lapse.core.keys import SessionKey
from lapse.store.operation import (
    Asking,
    Dialect,
    Part,
    Row,
    dialect,
    first,
    key_of,
    only,
    operation,
    rows,
)
from lapse.store.records import EventRecord

HEARTBEAT: Final = timedelta(seconds=2)
"""How often a process says of its runs that they live."""

STALE: Final = timedelta(seconds=8)
"""A run whose last heartbeat is older was interrupted: its process died."""

KEPT: Final = timedelta(days=1)
"""How long the record of an ended run is kept, for readers that come back."""

_FORGOTTEN_TOGETHER: Final = 500


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


class RunStore(Part):
    """The runs of a store: their records, their heartbeats, and what was stored of them.

    A crash may undo a beginning or a heartbeat: they mean nothing without their process.
    """

    @operation(flushed=False)
    def begin_run(self, key: SessionKey, run_id: str, *, most_of_user: int) -> Asking[RunRecord]:
        """Record that a run begins, the only one in flight in its session.

        A stale one gives way: it is recorded as interrupted.

        Raises:
            RunInFlightError: another run is in flight in the session; it names it.
            TooManyRunsError: the user has `most_of_user` runs in flight. They are counted as
                the run begins: of two that begin at one instant, both may be let in.
        """
        while True:
            row = yield from first(
                "begin_run", key, run_id=run_id, most_of_user=most_of_user, stale=STALE
            )
            if row is not None:
                return _record(key, row)
            found = yield from only("run_in_flight", key, stale=STALE)
            if found["run_id"] == run_id:
                # A broken-off attempt of this very call had begun it.
                return _record(key, found)
            if found["run_id"] is not None:
                raise RunInFlightError(found["run_id"])
            if found["of_user"] >= most_of_user:
                raise TooManyRunsError(f"there are {most_of_user} runs of this user in flight")

    @operation(flushed=False)
    def note_run(self, run_id: str, invocation_id: str, since: datetime) -> Asking[None]:
        """Record by which invocation, and from when on, a run's events are known."""
        yield from rows("note_run", run_id=run_id, invocation_id=invocation_id, since=since)

    @operation(flushed=False)
    def beat_runs(self, run_ids: Sequence[str]) -> Asking[Mapping[str, bool]]:
        """Refresh the heartbeat of runs; return those still in flight, and if to be cancelled.

        One that is not returned was taken for dead, or went with its session.
        """
        found = yield from rows("beat_runs", run_ids=list(run_ids), stale=STALE)
        return {row["run_id"]: bool(row["cancel_requested"]) for row in found}

    @operation()
    def end_run(
        self,
        run_id: str,
        status: RunStatus,
        *,
        error: Mapping[str, Any] | None = None,
        until: datetime | None = None,
    ) -> Asking[bool]:
        """Record how a run ended; False when its record says already that it did."""
        row = yield from first(
            "end_run",
            run_id=run_id,
            status=str(status),
            error=None if error is None else json.dumps(error),
            until=until,
        )
        return row is not None

    @operation()
    def cancel_run(self, key: SessionKey, run_id: str) -> Asking[RunRecord | None]:
        """Ask for the end of a run in flight and return its record; None where it is unknown."""
        yield from rows("cancel_run", key, run_id=run_id)
        row = yield from first("find_run", key, run_id=run_id, event_id=None)
        return None if row is None else _record(key, row)

    @operation(writes=False)
    def find_run(
        self, key: SessionKey, run_id: str | None = None, *, event_id: str | None = None
    ) -> Asking[RunRecord | None]:
        """Return a session's run by its id, or by one of its events, or both; else its latest."""
        row = yield from first("find_run", key, run_id=run_id, event_id=event_id)
        return None if row is None else _record(key, row)

    @operation(writes=False)
    def run_news(
        self, places: Mapping[str, str | None], *, limit: int
    ) -> Asking[Sequence[RunNews]]:
        """Return of each run what was stored after the event named, or with None from its start.

        At most `limit` events of each, in the order they were stored; from one snapshot, so
        that no event is missing before one that is there, and none comes after a record that
        says the run has ended. Runs that are unknown are left out.
        """
        if (yield from dialect()) is Dialect.SQLITE:
            return (yield from _news_of_each(places, limit))
        # One statement is one snapshot and one round trip.
        found = yield from rows(
            "run_news", run_ids=list(places), afters=list(places.values()), limit=limit
        )
        of_runs = (list(one) for _, one in groupby(found, key=lambda row: str(row["run_id"])))
        return [_news(one[0], one) for one in of_runs]

    @operation()
    def forget_runs(self, limit: int) -> Asking[int]:
        """Delete at most `limit` records of runs that ended longer than KEPT ago; how many."""
        return len((yield from rows("forget_runs", limit=limit, kept=KEPT)))

    async def maintain(self) -> None:
        """Delete every record of a run that ended longer than KEPT ago, some at a time."""
        while await self.forget_runs(_FORGOTTEN_TOGETHER) == _FORGOTTEN_TOGETHER:
            pass


def _news_of_each(places: Mapping[str, str | None], limit: int) -> Asking[Sequence[RunNews]]:
    """Return what `run_news` does, a run at a time: the transaction is the snapshot."""
    found = []
    for run_id, after in places.items():
        run = yield from first("read_run", run_id=run_id)
        if run is not None:
            events = yield from rows("read_run_events", run_id=run_id, event_id=after, limit=limit)
            found.append(_news(run, events))
    return found


def _news(run: Row, events: Iterable[Row]) -> RunNews:
    """Return a run's news; a row without an event stands for none."""
    told = [
        EventRecord(event_id, row["event_invocation"], row["event_time"], row["event_data"])
        for row in events
        if (event_id := row["event_id"]) is not None
    ]
    return RunNews(_record(key_of(run), run), told)


def _record(key: SessionKey, row: Row) -> RunRecord:
    error = row["error"]
    return RunRecord(
        run_id=row["run_id"],
        key=key,
        status=RunStatus(row["status"]),
        started_at=row["started_at"],
        heartbeat_at=row["heartbeat_at"],
        ended_at=row["ended_at"],
        cancel_requested=bool(row["cancel_requested"]),
        invocation_id=row["invocation_id"],
        since=row["since"],
        until=row["until"],
        error=None if error is None else json.loads(error),
    ).at(row["now"])
