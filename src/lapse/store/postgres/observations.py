"""Observations and decisions in PostgreSQL; see `lapse.ttl.store`."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from lapse.core.lifecycle import Change, ChangeKind
from lapse.store.postgres import values as rows
from lapse.store.postgres.call import Call
from lapse.ttl import EDGES, Decision, Kind, Scope
from lapse.ttl.observed import MOST_PER_USER, Count
from lapse.ttl.store import FirstMessage, Round

_EDGES: Final = [edge // timedelta(microseconds=1) for edge in EDGES]


async def observed(call: Call, since: date) -> list[Count]:
    """Return the counts; see `Observations.observed`."""
    found = await call.run("observed", first_day=since, edges=_EDGES, most_per_user=MOST_PER_USER)
    return [
        Count(
            Scope(row["app_name"], row["segment"]),
            row["day"],
            Kind(row["kind"]),
            row["bucket"],
            row["sessions"],
        )
        for row in found
    ]


async def recent(call: Call, newest: int, reach: timedelta) -> list[FirstMessage]:
    """Return the newest first messages; see `Observations.recent_first_messages`."""
    found = await call.run(
        "recent_first_messages", newest=newest, reach=reach, most_per_user=MOST_PER_USER
    )
    return [
        FirstMessage(
            Scope(row["app_name"], row["segment"]),
            row["observed_at"],
            row["observed_at"] - row["created_at"],
        )
        for row in found
    ]


async def fold(
    call: Call, before: datetime, segments: Collection[Scope], forgotten: datetime
) -> None:
    """Fold complete days into counts; see `Observations.fold_observations`."""
    await call.run(
        "fold_observations",
        before=before,
        segments=json.dumps([{"app": app, "segment": segment} for app, segment in segments]),
        edges=_EDGES,
        most_per_user=MOST_PER_USER,
        forgotten=forgotten,
    )


async def refuse(call: Call) -> bool:
    """Count a message to a purged session; see `Observations.refuse`."""
    return await call.first("refuse") is not None


async def ttl_round(call: Call) -> Round:
    """Return how far the rounds are."""
    row = await call.first("ttl_round")
    assert row is not None
    return Round(row["now"], row["slot"], row["version"] or 0)


async def ttl_decisions(call: Call, newest: int) -> list[Decision]:
    """Return the newest decisions of each scope."""
    found = await call.run("ttl_decisions", newest=newest)
    return [Decision.from_document(json.loads(row["decision"])) for row in found]


async def record_decisions(
    call: Call, decisions: Sequence[Decision], slot: int, version: int
) -> bool:
    """Record what a round has decided; see `Observations.record_decisions`."""
    documents = json.dumps([decision.as_document() for decision in decisions])
    row = await call.first("record_decisions", decisions=documents, slot=slot, version=version)
    return row is not None


async def lengthen_waiting(
    call: Call, scope: Scope, before: timedelta, ttl: timedelta, limit: int
) -> list[Change]:
    """Give waiting sessions a longer TTL; see `Observations.lengthen_waiting`."""
    found = await call.run(
        "lengthen_waiting", segment=scope.segment, ttl_before=before, ttl=ttl, limit=limit
    )
    return [
        Change(ChangeKind.EXTENDED, row["now"], rows.lobby_record(row, call.rules)) for row in found
    ]
