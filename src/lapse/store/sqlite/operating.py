"""What operators look at in SQLite; see `lapse.overview.store`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from lapse.core.lifecycle import ChangeKind, Status
from lapse.overview.find import Place, Way, bounds, finds_nothing, fits, next_after
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
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.part import SqlitePart
from lapse.store.sqlite.transaction import Transaction

_HOUR: Final = timedelta(hours=1)


def tallies(transaction: Transaction) -> list[Tally]:
    """Return the levels."""
    return [
        Tally(app_name, Status(status), sessions)
        for app_name, status, sessions in transaction.run("tallies")
    ]


def overview(transaction: Transaction, since: timedelta) -> Overview:
    """Return the overview; see `Operated.overview`."""
    after = rows.to_micros(transaction.moment - since - BUCKET)
    moments: Any = transaction.first("moments")
    moment_of = cache(rows.from_micros)
    return Overview(
        now=transaction.moment,
        tallies=tallies(transaction),
        counts=[
            Counted(app_name, ChangeKind(kind), moment_of(at), sessions)
            for app_name, kind, at, sessions in transaction.run("counts", counted_after=after)
        ],
        next_expiry=rows.moment(moments["next_expiry"]),
        next_purge=rows.moment(moments["next_purge"]),
        swept_at=rows.moment(moments["swept_at"]),
        brake=brake(transaction),
    )


def find(transaction: Transaction, query: Query) -> Page:
    """Return a page of sessions; see `Operated.find`."""
    after = Place.read(query).moment
    if finds_nothing(query):
        return Page((), None)
    fitting, last, asked = list[sqlite3.Row](), None, bounds(query)
    examined = transaction.run(f"find_{Way.of(query)}", **asked, after_moment=after)
    with closing(examined):
        for number, row in enumerate(examined, 1):
            if fits(query, row):
                fitting.append(row)
            if len(fitting) > query.size:
                break
            last = row if number == asked["most"] else None
    places = json.dumps([row["place"] for row in fitting[: query.size]])
    records = [
        rows.lobby_record(row, transaction.rules, transaction.now)
        for row in transaction.run("found", places=places)
    ]
    row = next_after(query, fitting, last)
    return Page(records, None if row is None else Place.of(row, row["moment"]).text(query))


def dues(transaction: Transaction, most: int) -> Dues:
    """Return how many sessions are due; see `Operated.dues`."""
    due: Any = transaction.first("count_due", most=most if transaction.rules.enforced else 0)
    stored = sum(tally.sessions for tally in tallies(transaction))
    return Dues(transaction.moment, due["expire"], due["purge"], stored, brake(transaction))


def fold_counts(transaction: Transaction) -> None:
    """Bring the levels up to date; see `Operated.fold_counts`."""
    closed = rows.floor(transaction.now, BUCKET)
    for name in ("fold_levels", "fold_counts", "delete_folded_counts"):
        transaction.run(name, closed=closed)
    hourly_before = rows.floor(transaction.now - rows.duration_micros(FINE), _HOUR)
    transaction.run("fold_hours", hourly_before=hourly_before)
    forgotten = rows.to_micros(transaction.moment - COUNTS_KEPT)
    transaction.run("delete_folded_hours", hourly_before=hourly_before, forgotten=forgotten)


def recount(transaction: Transaction) -> None:
    """Set the levels to what the records are; see `Operated.recount`."""
    transaction.run("delete_levels")
    transaction.run("recount")


def mark_swept(transaction: Transaction) -> datetime:
    """Note that a sweeper works; see `Operated.mark_swept`."""
    transaction.run("mark_swept")
    return transaction.moment


def brake(transaction: Transaction) -> Brake | None:
    """Return the brake that is set."""
    row = transaction.first("brake")
    if row is None:
        return None
    return Brake(
        reason=BrakeReason(row["reason"]),
        since=rows.from_micros(row["since"]),
        until=rows.from_micros(row["until"]),
        sessions=row["sessions"],
        jump=timedelta(microseconds=row["jump"]),
    )


def set_brake(transaction: Transaction, wanted: Brake) -> bool:
    """Set a brake; see `Operated.set_brake`."""
    row = transaction.first(
        "set_brake",
        reason=wanted.reason,
        since=rows.to_micros(wanted.since),
        until=rows.to_micros(wanted.until),
        sessions=wanted.sessions,
        jump=rows.duration_micros(wanted.jump),
        confirmed=rows.duration_micros(CONFIRMED),
    )
    return row is not None


class SqliteOperated(SqlitePart):
    """The part of the SQLite store that is `Operated`."""

    async def overview(self, *, since: timedelta) -> Overview:
        """Return the overview."""
        return await self._read(lambda t: overview(t, since))

    async def find(self, query: Query) -> Page:
        """Return a page of sessions."""
        return await self._read(lambda t: find(t, query))

    async def dues(self, *, most: int) -> Dues:
        """Return how many sessions are due."""
        return await self._read(lambda t: dues(t, most))

    async def fold_counts(self) -> None:
        """Bring the levels up to date."""
        await self._write(fold_counts)

    async def recount(self) -> None:
        """Set the levels to what the records are."""
        await self._write(recount)

    async def mark_swept(self) -> datetime:
        """Note that a sweeper works; a power cut may undo it."""
        return await self._write(mark_swept, flushed=False)

    async def set_brake(self, brake: Brake) -> bool:
        """Set a brake."""
        return await self._write(lambda t: set_brake(t, brake))

    async def brake(self) -> Brake | None:
        """Return the brake that is set."""
        return await self._read(brake)

    async def release_brake(self, *, since: datetime) -> bool:
        """Let go of a brake."""
        at = rows.to_micros(since)
        return await self._write(lambda t: t.first("release_brake", since=at) is not None)
