"""The records of runs in a store, each with a heartbeat, beside the events that ADK stores.

A run is in flight while its record says so and its heartbeat is fresh. If the process of a run
dies, the record grows stale: from then on it reads as interrupted, and another run may begin in the
session. All times are by the store's clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from lapse.core.errors import RunInFlightError, too_many_runs
from lapse.core.keys import SessionKey
from lapse.store.operation import (
    Asking,
    Dialect,
    Part,
    Row,
    confirmed,
    dialect,
    first,
    key_of,
    only,
    operation,
    rows,
)
from lapse.store.records import EventRecord

HEARTBEAT: Final = timedelta(seconds=2)
"""How often a process refreshes the heartbeats of its runs."""

STALE: Final = timedelta(seconds=8)
"""The age of a heartbeat from which on a run reads as interrupted: its process has died."""

RETENTION: Final = timedelta(days=1)
"""How long the record of an ended run is kept for readers that come back."""

_DELETE_BATCH: Final = 500


class RunStatus(StrEnum):
    """Whether a run is in flight, or how it ended."""

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
        run_id: unique among the runs of all sessions.
        key: the session of the run.
        status: INTERRUPTED also if the stored status is RUNNING and the heartbeat is stale.
        started_at: when the run began.
        heartbeat_at: when its process last refreshed it.
        ended_at: None while the run is in flight.
        cancel_requested: whether somebody has cancelled the run; its process learns of that with
            its next heartbeat.
        invocation_id: ADK's id of the run in its events; None before the first event.
        since: the timestamp of the run's first event, the user's message.
        until: the timestamp of the run's last event, once the run has ended.
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
        """Return the record as it reads at `now`: a stale run is interrupted."""
        if self.status is RunStatus.RUNNING and self.heartbeat_at <= now - STALE:
            return replace(self, status=RunStatus.INTERRUPTED, ended_at=self.heartbeat_at + STALE)
        return self

    @property
    def in_flight(self) -> bool:
        """Return whether the run goes on."""
        return self.status is RunStatus.RUNNING


@dataclass(frozen=True, slots=True)
class RunNews:
    """A run's record, and the agent's events that were stored after one of the run's events."""

    record: RunRecord
    events: Sequence[EventRecord]


class RunStore(Part):
    """The operations on runs: their records, their heartbeats and their stored events.

    A beginning and a note are flushed: a run goes on when its database crashes, and its events are
    stored once the database is back. A crash may lose a heartbeat; the next one makes up for it.
    """

    @operation()
    def begin_run(self, key: SessionKey, run_id: str, *, max_per_user: int) -> Asking[RunRecord]:
        """Record that a run begins; a session has at most one run in flight.

        A stale run of the session is recorded as interrupted. A repeat is recognised by `run_id`.

        Raises:
            RunInFlightError: another run is in flight in the session; the error names it.
            TooManyRunsError: the user has `max_per_user` runs in flight in the app. They are
                counted when a run begins, so two runs that begin at one instant may both be
                accepted.
        """
        while True:
            row = yield from first(
                "begin_run", key, run_id=run_id, max_per_user=max_per_user, stale=STALE
            )
            if row is not None:
                return record_of(key, row)
            found = yield from only("run_in_flight", key, stale=STALE)
            if found["run_id"] == run_id:
                # An earlier attempt of this call recorded the run before its connection broke.
                return record_of(key, found)
            if found["run_id"] is not None:
                raise RunInFlightError(found["run_id"])
            if found["of_user"] >= max_per_user:
                raise too_many_runs(max_per_user)

    @operation()
    def note_run(self, run_id: str, invocation_id: str, since: datetime) -> Asking[None]:
        """Record the invocation of a run, and the timestamp of its first event.

        A repeat records the same again.
        """
        yield from rows("note_run", run_id=run_id, invocation_id=invocation_id, since=since)

    @operation(flushed=False)
    def beat_runs(self, run_ids: Sequence[str]) -> Asking[Mapping[str, bool]]:
        """Refresh heartbeats; return for each run still in flight whether it has been cancelled.

        A run that is not returned has gone stale before, or was deleted with its session. A repeat
        refreshes once more.
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
        """Record how a run ended; return False, and change nothing, if it had ended before.

        A repeat finds that the run has ended.
        """
        row = yield from first(
            "end_run",
            run_id=run_id,
            status=str(status),
            error=None if error is None else json.dumps(error),
            until=until,
        )
        if row is None:
            yield from confirmed()
        return row is not None

    @operation()
    def cancel_run(self, key: SessionKey, run_id: str) -> Asking[RunRecord | None]:
        """Mark a run in flight as cancelled and return its record; None if the run is unknown.

        A repeat marks it again.
        """
        yield from rows("cancel_run", key, run_id=run_id)
        row = yield from first("find_run", key, run_id=run_id, event_id=None)
        return None if row is None else record_of(key, row)

    @operation(writes=False)
    def find_run(
        self, key: SessionKey, run_id: str | None = None, *, event_id: str | None = None
    ) -> Asking[RunRecord | None]:
        """Return a session's run by its id, by an agent's event or by both; else the latest."""
        row = yield from first("find_run", key, run_id=run_id, event_id=event_id)
        return None if row is None else record_of(key, row)

    @operation(writes=False)
    def run_news(
        self, last_seen: Mapping[str, str | None], *, limit: int
    ) -> Asking[Sequence[RunNews]]:
        """Return each run's record and the agent's events after the last seen one.

        `last_seen` maps the id of a run to the id of an event, or to None for its start. At most
        `limit` events of each run are returned, in the order in which they were stored, without
        gaps. All is one snapshot: if a record says that its run has ended, no later events will
        come. Unknown runs are left out.
        """
        if (yield from dialect()) is Dialect.SQLITE:
            return (yield from _news_of_each(last_seen, limit))
        # One statement is one snapshot and one round trip.
        found = yield from rows(
            "run_news", run_ids=list(last_seen), afters=list(last_seen.values()), limit=limit
        )
        of_runs = (list(one) for _, one in groupby(found, key=lambda row: str(row["run_id"])))
        return [_news(one[0], one) for one in of_runs]

    @operation()
    def forget_runs(self, limit: int) -> Asking[int]:
        """Delete at most `limit` records of runs that ended RETENTION ago; return their number.

        A repeat deletes what is left of them.
        """
        return len((yield from rows("forget_runs", limit=limit, kept=RETENTION)))

    async def maintain(self) -> None:
        """Delete all records of runs that ended RETENTION ago, in batches."""
        while await self.forget_runs(_DELETE_BATCH) == _DELETE_BATCH:
            pass


def _news_of_each(last_seen: Mapping[str, str | None], limit: int) -> Asking[Sequence[RunNews]]:
    """Do what `run_news` does with two statements per run; the transaction is the snapshot."""
    found = []
    for run_id, after in last_seen.items():
        run = yield from first("read_run", run_id=run_id)
        if run is not None:
            events = yield from rows("read_run_events", run_id=run_id, event_id=after, limit=limit)
            found.append(_news(run, events))
    return found


def _news(run: Row, events: Iterable[Row]) -> RunNews:
    """Return a run's record and events; a row without an event says that there are none."""
    told = [
        EventRecord(event_id, row["event_invocation"], row["event_time"], row["event_data"])
        for row in events
        if (event_id := row["event_id"]) is not None
    ]
    return RunNews(record_of(key_of(run), run), told)


def record_of(key: SessionKey, row: Row) -> RunRecord:
    """Return the record of a row of `lapse_runs`, as it reads at the moment of its statement."""
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
