"""What operators look at in PostgreSQL; see `lapse.overview.store`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import asyncpg

from lapse.core.lifecycle import ChangeKind, Status
from lapse.overview.find import Place, Way, bounds, finds_nothing, next_after
from lapse.overview.store import (
    BUCKET,
    CONFIRMED,
    COUNTS_KEPT,
    FINE,
    Brake,
    BrakeReason,
    Counted,
    Dues,
    Overview,
    Page,
    Query,
    Tally,
)
from lapse.store.postgres import values as rows
from lapse.store.postgres.call import Call
from lapse.store.postgres.connections import Taken
from lapse.store.postgres.part import PostgresPart

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


async def overview(call: Call, since: timedelta) -> Overview:
    """Return the overview; see `Operated.overview`."""
    row: Any = await call.first("overview", reach=since + BUCKET)
    moment_of = cache(datetime.fromtimestamp)
    return Overview(
        now=row["now"],
        tallies=[
            Tally(app_name, Status(status), sessions)
            for app_name, status, sessions in _zipped(
                row["level_apps"], row["level_statuses"], row["levels"]
            )
        ],
        counts=[
            Counted(app_name, ChangeKind(kind), moment_of(seconds, UTC), sessions)
            for app_name, kind, seconds, sessions in _zipped(
                row["count_apps"], row["count_kinds"], row["count_seconds"], row["counts"]
            )
        ],
        next_expiry=row["next_expiry"],
        next_purge=row["next_purge"],
        swept_at=row["swept_at"],
        brake=_brake(row),
    )


async def find(call: Call, query: Query) -> Page:
    """Return a page of sessions; see `Operated.find`."""
    after = _EPOCH + Place.read(query).moment * _MICROSECOND
    if finds_nothing(query):
        return Page((), None)
    asked = bounds(query)
    found = await call.run(
        f"find_{Way.of(query)}",
        **asked,
        only_status=query.status,
        size=query.size + 1,
        after_at=after,
    )
    fitting = [row for row in found if row["fits"]]
    last = found[-1] if found and found[-1]["examined"] == asked["most"] else None
    row = next_after(query, fitting, last)
    records = [rows.lobby_record(one, call.rules) for one in fitting[: query.size]]
    if row is None:
        return Page(records, None)
    moment = ((row["moment"] or _EPOCH) - _EPOCH) // _MICROSECOND
    return Page(records, Place.of(row, moment).text(query))


def _zipped(*columns: Sequence[Any] | None) -> Iterable[tuple[Any, ...]]:
    """Return the rows of arrays of one length; an array of no rows comes as None."""
    return zip(*(column or () for column in columns), strict=True)


def _brake(row: asyncpg.Record) -> Brake | None:
    if row["reason"] is None:
        return None
    return Brake(
        BrakeReason(row["reason"]), row["since"], row["until"], row["sessions"], row["jump"]
    )


class PostgresOperated(PostgresPart):
    """The part of the PostgreSQL store that is `Operated`."""

    async def overview(self, *, since: timedelta) -> Overview:
        """Return the overview."""
        return await overview(await self._call(), since)

    async def find(self, query: Query) -> Page:
        """Return a page of sessions."""
        return await find(await self._call(), query)

    async def dues(self, *, most: int) -> Dues:
        """Return how many sessions are due."""
        call = await self._call()
        row: Any = await call.first("dues", most=most if call.rules.enforced else 0)
        return Dues(row["now"], row["expire"], row["purge"], row["stored"], _brake(row))

    async def fold_counts(self) -> None:
        """Bring the levels up to date."""
        call = await self._call()
        await call.run("fold_counts")
        await call.run("fold_hours", fine=FINE, kept=COUNTS_KEPT)

    async def recount(self) -> None:
        """Set the levels to what the records are."""
        call = await self._call()

        async def recount_all(connection: Taken) -> None:
            for name in ("lock_levels", "delete_levels", "recount"):
                await connection.execute(*call.bound(name))

        await self._connections.transact(recount_all)

    async def mark_swept(self) -> datetime:
        """Note that a sweeper works."""
        row: Any = await (await self._call()).first("mark_swept")
        swept_at: datetime = row["swept_at"]
        return swept_at

    async def set_brake(self, brake: Brake) -> bool:
        """Set a brake."""
        row = await (await self._call()).first(
            "set_brake",
            reason=brake.reason,
            braked_at=brake.since,
            braked_until=brake.until,
            sessions=brake.sessions,
            jump=brake.jump,
            confirmed=CONFIRMED,
        )
        return row is not None

    async def brake(self) -> Brake | None:
        """Return the brake that is set."""
        row = await (await self._call()).first("brake")
        return None if row is None else _brake(row)

    async def release_brake(self, *, since: datetime) -> bool:
        """Let go of a brake."""
        return await (await self._call()).first("release_brake", braked_at=since) is not None
