"""Runs in PostgreSQL: their records, their heartbeats, and what was stored of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import asyncpg

from lapse.core.errors import RunInFlightError, TooManyRunsError
from lapse.core.keys import SessionKey
from lapse.runs.store import KEPT, STALE, RunNews, RunRecord, RunStatus
from lapse.store.postgres import values as rows
from lapse.store.postgres.call import Call
from lapse.store.records import EventRecord


async def begin(call: Call, run_id: str, most_of_user: int) -> RunRecord:
    """Record that a run begins; see `RunStore.begin_run`."""
    while True:
        row = await call.first("begin_run", run_id=run_id, most_of_user=most_of_user, stale=STALE)
        if row is not None:
            return _record(row)
        found = await call.first("run_in_flight", stale=STALE)
        assert found is not None
        if found["run_id"] == run_id:
            # A broken-off attempt of this very call had begun it.
            return _record(found)
        if found["run_id"] is not None:
            raise RunInFlightError(found["run_id"])
        if found["of_user"] >= most_of_user:
            raise TooManyRunsError(f"there are {most_of_user} runs of this user in flight")


async def note(call: Call, run_id: str, invocation_id: str, since: datetime) -> None:
    """Record by what a run's events are known; see `RunStore.note_run`."""
    await call.run(
        "note_run", run_id=run_id, invocation_id=invocation_id, since=rows.to_naive(since)
    )


async def beat(call: Call, run_ids: Sequence[str]) -> Mapping[str, bool]:
    """Refresh heartbeats; see `RunStore.beat_runs`."""
    found = await call.run("beat_runs", run_ids=list(run_ids), stale=STALE)
    return {row["run_id"]: row["cancel_requested"] for row in found}


async def end(
    call: Call,
    run_id: str,
    status: RunStatus,
    error: Mapping[str, Any] | None,
    until: datetime | None,
) -> bool:
    """Record how a run ended; see `RunStore.end_run`."""
    row = await call.first(
        "end_run",
        run_id=run_id,
        status=str(status),
        error=None if error is None else json.dumps(error),
        until=None if until is None else rows.to_naive(until),
    )
    return row is not None


async def cancel(call: Call, run_id: str) -> RunRecord | None:
    """Ask for a run's end; see `RunStore.cancel_run`."""
    await call.run("cancel_run", run_id=run_id)
    return await find(call, run_id, None)


async def find(call: Call, run_id: str | None, event_id: str | None) -> RunRecord | None:
    """Return a session's run; see `RunStore.find_run`."""
    row = await call.first("find_run", run_id=run_id, event_id=event_id)
    return None if row is None else _record(row)


async def news(call: Call, places: Mapping[str, str | None], limit: int) -> list[RunNews]:
    """Return what was stored of runs; see `RunStore.run_news`."""
    found = await call.run(
        "run_news", run_ids=list(places), afters=list(places.values()), limit=limit
    )
    return [_news(list(of_one)) for _, of_one in groupby(found, key=lambda row: str(row["run_id"]))]


async def forget(call: Call, limit: int) -> int:
    """Delete old records; see `RunStore.forget_runs`."""
    return len(await call.run("forget_runs", limit=limit, kept=KEPT))


def _news(found: list[asyncpg.Record]) -> RunNews:
    events = [
        EventRecord(
            row["event_id"],
            row["event_invocation"],
            rows.from_naive(row["event_time"]),
            row["event_data"],
        )
        for row in found
        if row["event_id"] is not None
    ]
    return RunNews(_record(found[0]), events)


def _record(row: asyncpg.Record) -> RunRecord:
    return RunRecord(
        run_id=row["run_id"],
        key=SessionKey(row["app_name"], row["user_id"], row["session_id"]),
        status=RunStatus(row["status"]),
        started_at=row["started_at"],
        heartbeat_at=row["heartbeat_at"],
        ended_at=row["ended_at"],
        cancel_requested=row["cancel_requested"],
        invocation_id=row["invocation_id"],
        since=None if row["since"] is None else rows.from_naive(row["since"]),
        until=None if row["until"] is None else rows.from_naive(row["until"]),
        error=None if row["error"] is None else json.loads(row["error"]),
    ).at(row["now"])
