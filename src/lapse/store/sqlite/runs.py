"""Runs in SQLite: their records, their heartbeats, and what was stored of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lapse.core.errors import RunInFlightError, TooManyRunsError
from lapse.core.keys import SessionKey
from lapse.runs.store import KEPT, STALE, RunNews, RunRecord, RunStatus
from lapse.store.records import EventRecord
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.transaction import Transaction

_STALE = rows.duration_micros(STALE)


def begin(transaction: Transaction, run_id: str, most_of_user: int) -> RunRecord:
    """Record that a run begins; see `RunStore.begin_run`."""
    transaction.run("free_session", stale=_STALE)
    row = transaction.first("begin_run", run_id=run_id, most_of_user=most_of_user, stale=_STALE)
    if row is not None:
        return _record(transaction, row)
    running = transaction.first("run_in_flight")
    if running is not None:
        raise RunInFlightError(running["run_id"])
    raise TooManyRunsError(f"there are {most_of_user} runs of this user in flight")


def note(transaction: Transaction, run_id: str, invocation_id: str, since: datetime) -> None:
    """Record by what a run's events are known; see `RunStore.note_run`."""
    transaction.run(
        "note_run", run_id=run_id, invocation_id=invocation_id, since=rows.to_text(since)
    )


def beat(transaction: Transaction, run_ids: Sequence[str]) -> Mapping[str, bool]:
    """Refresh heartbeats; see `RunStore.beat_runs`."""
    found = {run: transaction.first("beat_run", run_id=run, stale=_STALE) for run in run_ids}
    return {run: bool(row["cancel_requested"]) for run, row in found.items() if row is not None}


def end(
    transaction: Transaction,
    run_id: str,
    status: RunStatus,
    error: Mapping[str, Any] | None,
    until: datetime | None,
) -> bool:
    """Record how a run ended; see `RunStore.end_run`."""
    row = transaction.first(
        "end_run",
        run_id=run_id,
        status=str(status),
        error=None if error is None else json.dumps(error),
        until=None if until is None else rows.to_text(until),
    )
    return row is not None


def cancel(transaction: Transaction, run_id: str) -> RunRecord | None:
    """Ask for a run's end; see `RunStore.cancel_run`."""
    transaction.run("cancel_run", run_id=run_id)
    return find(transaction, run_id, None)


def find(transaction: Transaction, run_id: str | None, event_id: str | None) -> RunRecord | None:
    """Return a session's run; see `RunStore.find_run`."""
    row = transaction.first("find_run", run_id=run_id, event_id=event_id)
    return None if row is None else _record(transaction, row)


def news(transaction: Transaction, places: Mapping[str, str | None], limit: int) -> list[RunNews]:
    """Return what was stored of runs; see `RunStore.run_news`."""
    found = []
    for run_id, after in places.items():
        row = transaction.first("read_run", run_id=run_id)
        if row is not None:
            events = transaction.run("read_run_events", run_id=run_id, after=after, limit=limit)
            found.append(RunNews(_record(transaction, row), [_event(event) for event in events]))
    return found


def forget(transaction: Transaction, limit: int) -> int:
    """Delete old records; see `RunStore.forget_runs`."""
    return transaction.run("forget_runs", limit=limit, kept=rows.duration_micros(KEPT)).rowcount


def _event(row: sqlite3.Row) -> EventRecord:
    return EventRecord(
        row["id"], row["invocation_id"], rows.from_text(row["timestamp"]), row["event_data"]
    )


def _record(transaction: Transaction, row: sqlite3.Row) -> RunRecord:
    return RunRecord(
        run_id=row["run_id"],
        key=SessionKey(row["app_name"], row["user_id"], row["session_id"]),
        status=RunStatus(row["status"]),
        started_at=rows.from_micros(row["started_at"]),
        heartbeat_at=rows.from_micros(row["heartbeat_at"]),
        ended_at=None if row["ended_at"] is None else rows.from_micros(row["ended_at"]),
        cancel_requested=bool(row["cancel_requested"]),
        invocation_id=row["invocation_id"],
        since=None if row["since"] is None else rows.from_text(row["since"]),
        until=None if row["until"] is None else rows.from_text(row["until"]),
        error=None if row["error"] is None else json.loads(row["error"]),
    ).at(transaction.moment)
