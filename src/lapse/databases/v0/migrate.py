"""Migrating a database from version 0 to version 1 where it is: resumable, compared, undoable.

The new tables are filled beside the old ones, batch by batch, under a lock that keeps others from
writing. Under a last lock all of both is compared, and the two change their places in one
transaction. Until then ADK reads the database as before; afterwards the old tables stay, under
other names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from lapse.core.errors import InvalidValueError, StoreRefusedError
from lapse.databases.tables import Row
from lapse.databases.v0.place import Batch, Look, Place, Span, Work
from lapse.databases.v0.rows import (
    BATCHES,
    MIGRATION,
    NEW,
    OLD,
    TABLES,
    OldTable,
    check_old,
    converted,
    is_old,
)
from lapse.databases.v0.sums import (
    Bars,
    no_bars,
    pages,
    sum_of,
    sum_of_batches,
    sum_of_new,
    sum_of_old,
    told_of,
)

UTC_NAME: Final = "UTC"

_MOST_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What a migration would do.

    Attributes:
        is_old: whether ADK's tables are of version 0; otherwise there is nothing to migrate.
        is_kept: whether the old tables of a migration are kept.
        is_begun: whether a migration was begun.
        rows: how many rows each old table has.
        others: how many other connections the server has to the database.
    """

    is_old: bool
    is_kept: bool
    is_begun: bool
    rows: Mapping[str, int]
    others: int = 0

    @property
    def total(self) -> int:
        """Return how many rows there are."""
        return sum(self.rows.values())


@dataclass(frozen=True, slots=True)
class Converted:
    """One table: how many rows it had and has, the orphans left out, and the new checksum."""

    table: str
    rows: int
    orphans: int
    checksum: str


def zone_of(name: str) -> tzinfo:
    """Return the time zone of a name, such as `Europe/Berlin`.

    Raises:
        InvalidValueError: there is none.
    """
    try:
        return UTC if name == UTC_NAME else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidValueError(
            "--time-zone", f"must be a name like Europe/Berlin or UTC, not {name!r:.40}"
        ) from error


async def examine(place: Place) -> Plan:
    """Return what a migration would do, and change nothing.

    Raises:
        StoreRefusedError: it is no database of ADK's, or one that cannot be migrated whole.
        StoreUnavailableError: the server does not answer.
    """
    found = await place.look()
    kept = bool(found.columns.get(f"{OLD}events"))
    if not any(found.columns.get(table.name) for table in TABLES):
        raise StoreRefusedError(
            f"{place.name}: holds no sessions of ADK; give the URL of the database that does"
        )
    if not is_old(found.columns):
        return Plan(is_old=False, is_kept=kept, is_begun=False, rows={})
    _check(found, place)
    async with place.reading() as work:
        rows = {table.name: await work.count(table.name) for table in TABLES}
    begun = bool(found.columns.get(BATCHES))
    return Plan(is_old=True, is_kept=kept, is_begun=begun, rows=rows, others=found.others)


def _check(found: Look, place: Place) -> None:
    check_old(found.columns, place.name)
    if found.columns.get(f"{OLD}events"):
        raise StoreRefusedError(
            f"{place.name}: has the old tables of an earlier migration ({OLD}events) beside tables "
            "of version 0; look at them, and drop those that are not needed"
        )
    if found.hangs:
        raise StoreRefusedError(
            f"{place.name}: {found.hangs}, and would not follow to the new tables; remove it "
            "first, and make it again afterwards"
        )


async def rehearse(place: Place, zone: str, bars: Bars = no_bars) -> Sequence[str]:
    """Convert every row, and write nothing; return what is said of rows that cannot be converted.

    At most 10 are named; the last sentence says that there are more.
    """
    read_in, problems = zone_of(zone), list[str]()
    async with place.reading() as work:
        with bars("reading") as tell:
            done = 0
            for table in TABLES:
                async for rows in pages(work, Span(table)):
                    found = await asyncio.to_thread(_problems, table, rows, read_in)
                    problems += found
                    done += len(rows)
                    tell(done)
                    if len(problems) > _MOST_NAMED:
                        return [*problems[:_MOST_NAMED], "and more"]
    return problems


def _problems(table: OldTable, rows: Sequence[Row], zone: tzinfo) -> list[str]:
    found = []
    for row in rows:
        try:
            converted(table, row, zone)
        except StoreRefusedError as error:
            found.append(str(error).rpartition("; nothing was changed")[0])
    return found


async def migrate(place: Place, zone: str, bars: Bars = no_bars) -> Sequence[Converted]:
    """Migrate a database; if it is stopped at any moment, the same call goes on.

    Args:
        place: the database.
        zone: the time zone in which the servers wrote the times of events.
        bars: shows how far it is.

    Raises:
        StoreRefusedError: it cannot be migrated, a row cannot be converted, somebody writes to it,
            or the old and the new tables differ in the end. The old tables are as they were.
        StoreUnavailableError: the server does not answer.
    """
    async with place.locked() as work:
        await _convert(work, place, zone, bars("converting"))
    async with place.locked(alone=True) as work:
        # In between others may have written: what they changed is converted again.
        await _convert(work, place, zone, bars("checking"))
        with bars("comparing") as tell:
            told = await _compared(work, place.name, tell)
        await work.swap()
    return told


async def _convert(
    work: Work, place: Place, zone: str, bar: AbstractContextManager[Callable[[int], None]]
) -> None:
    """Convert all that is not converted, or has changed since."""
    read_in = zone_of(zone)
    found = await work.look()
    if not is_old(found.columns):
        raise StoreRefusedError(
            f"{place.name}: its tables are not of ADK's version 0 any more; look with --dry-run"
        )
    _check(found, place)
    begun = await work.begin(zone)
    if begun != zone:
        raise StoreRefusedError(
            f"{place.name}: this migration was begun with --time-zone {begun}; go on with the "
            f"same, or begin anew by dropping {BATCHES}, {MIGRATION} and the tables {NEW}…"
        )
    with bar as tell:
        done = 0
        for table in TABLES:
            async for rows in _converted(work, table, read_in, place.name):
                done += rows
                tell(done)


async def _converted(work: Work, table: OldTable, zone: tzinfo, place: str) -> AsyncIterator[int]:
    """Convert what is left of a table; yield how many rows were converted, or had been."""
    known = {batch.after: batch for batch in await work.batches() if batch.table == table.name}
    after = None
    while (batch := known.get(after)) is not None:
        span = Span(table, batch.after, batch.last)
        if await sum_of_old(work, span) == (batch.rows, batch.old_sum):
            yield batch.rows
        else:  # somebody has written while no migration held the lock
            await work.forget(batch)
            async for rows in _converted_span(work, span, zone, place):
                yield rows
        after = batch.last
    async for rows in _converted_span(work, Span(table, after), zone, place):
        yield rows


async def _converted_span(work: Work, span: Span, zone: tzinfo, place: str) -> AsyncIterator[int]:
    table, after = span.table, span.after
    async for rows in pages(work, span):
        try:
            new = await asyncio.to_thread(_convert_all, table, rows, zone)
        except StoreRefusedError as error:
            raise StoreRefusedError(f"{place}: {error}") from None
        end = table.key_of(rows[-1])
        await _exchange(work, replace(span, after=after, upto=end), rows, new, place)
        after = end
        yield len(rows)
    if span.upto is not None and after != span.upto:
        # The rows up to here are gone: the batches stay in one chain.
        await _exchange(work, replace(span, after=after), [], [], place)


def _convert_all(table: OldTable, rows: Sequence[Row], zone: tzinfo) -> list[Row]:
    found = (converted(table, row, zone) for row in rows)
    return [row for row in found if row is not None]


async def _exchange(
    work: Work, span: Span, rows: Sequence[Row], new: Sequence[Row], place: str
) -> None:
    """Write the new rows of a span, which are all that it has, and note it as a batch."""
    assert span.upto is not None, "a batch ends"
    table = span.table
    (_, old_sum), (_, new_sum) = await asyncio.to_thread(
        lambda: (sum_of(told_of(table), rows), sum_of(table.new.columns, new))
    )
    orphans = len(rows) - len(new)
    batch = Batch(table.name, span.after, span.upto, len(rows), orphans, old_sum, new_sum)

    def check(written: Sequence[Row]) -> None:
        if sum_of(table.new.columns, written) != (len(new), new_sum):
            raise StoreRefusedError(
                f"{place}: {NEW}{table.name} does not hold what was written to it; "
                "stop what else writes there, and run it again"
            )

    await work.exchange(batch, table, new, check)


async def _compared(work: Work, place: str, tell: Callable[[int], None]) -> Sequence[Converted]:
    """Compare the counts of the old tables, and all new rows, with what was noted of the batches.

    The old rows were compared under the same lock, batch by batch.
    """
    done, told = 0, []
    for table in TABLES:
        batches = [batch for batch in await work.batches() if batch.table == table.name]
        expected = sum_of_batches(batches)
        old = await work.count(table.name)
        if old != expected.rows:
            raise StoreRefusedError(
                f"{place}: {table.name} has {old:,} rows, and {expected.rows:,} were converted; "
                "run it again"
            )
        new = await sum_of_new(work, NEW, table)
        done += new[0]
        tell(done)
        if new != (expected.rows - expected.orphans, expected.new_sum):
            raise StoreRefusedError(
                f"{place}: {NEW}{table.name} differs from what was converted; remove "
                f"{BATCHES}, {MIGRATION} and the tables {NEW}…, and run it again"
            )
        told.append(
            Converted(table.name, expected.rows, expected.orphans, f"{expected.new_sum:064x}")
        )
    return told
