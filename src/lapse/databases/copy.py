"""Copying a whole database into another store, page by page, and comparing the two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from lapse.core.errors import InvalidValueError, StoreRefusedError
from lapse.databases.sqlite import SqliteTables
from lapse.databases.tables import Checksum, Pages, Row, Table
from lapse.overview.store import OverviewStore
from lapse.store import store_from_url


@dataclass(frozen=True, slots=True)
class Copied:
    """One table: how many rows, and the checksum that both sides have of them."""

    table: str
    rows: int
    checksum: str


class Side(Protocol):
    """A database that a copy reads, or writes to."""

    def snapshot(self) -> AbstractAsyncContextManager[Mapping[Table, Pages]]:
        """Open the database as it is at one moment.

        Yields its tables in the order in which they can be written, each with its rows, which can
        be read once and inside the context.

        Raises:
            StoreRefusedError: it is no database of ADK's.
            StoreUnavailableError: it does not answer.
            NotWithThisServiceError: another session service has used sessions of its lobby.
        """
        ...

    async def count_rows(self) -> int:
        """Count the rows of all its tables; the errors are those of `snapshot`."""
        ...

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Write rows in one transaction; those whose keys are there already are left alone.

        Raises:
            StoreRefusedError: the database cannot hold a row, or cannot be written.
            StoreUnavailableError: it does not answer.
        """
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...


async def copy_database(
    source: str,
    target: str,
    *,
    on_counted: Callable[[int], Callable[[int], None]] = lambda _: lambda _: None,
) -> list[Copied]:
    """Copy every session, event, state and record of the lobby from one database to another.

    Both of ADK's SQLite formats and PostgreSQL can be read. The target is made ready as a
    store. Rows that it holds already are left alone, so that a copy that was stopped goes on
    with the same call; in the end both sides are counted and compared.

    Args:
        source: the URL of the database to read.
        target: the URL of the store to fill.
        on_counted: called with the number of rows before the first is copied; returns a function
            that is called with the number of those that were copied.

    Raises:
        InvalidValueError: one of the URLs is not valid here.
        StoreRefusedError: one of them is no database of ADK's, the target cannot hold a value
            of the source, or the target differs in the end: it held something else before, or
            was written to meanwhile.
        StoreUnavailableError: one does not answer.
        NotWithThisServiceError: another session service has used sessions of the source.
    """
    if source == target:
        raise InvalidValueError("TO", "must be another database than FROM")
    store = store_from_url(target)
    reading = _side(source)
    try:
        advance = on_counted(await reading.count_rows())
        async with reading.snapshot() as tables:
            await store.open()
            writing = _side(target)
            try:
                sums: dict[Table, Checksum] = {}
                for table, pages in tables.items():
                    before = sum(found.rows for found in sums.values())
                    sums[table] = await _copied(pages, table, writing, advance, before)
                await OverviewStore(store).recount()
                async with writing.snapshot() as written:
                    return [
                        await _compared(written[table], table, expected, target)
                        for table, expected in sums.items()
                    ]
            finally:
                await writing.close()
    finally:
        await store.close()
        await reading.close()


async def _copied(
    pages: Pages, table: Table, writing: Side, advance: Callable[[int], None], before: int
) -> Checksum:
    found = Checksum(table.columns)
    async for rows in pages:
        await writing.write(table, rows)
        await asyncio.to_thread(found.add, rows)
        advance(before + found.rows)
    return found


async def _compared(pages: Pages, table: Table, expected: Checksum, place: str) -> Copied:
    found = Checksum(table.columns)
    async for rows in pages:
        await asyncio.to_thread(found.add, rows)
    if found != expected:
        raise StoreRefusedError(
            f"{place.rpartition('@')[2]}: differs from what was copied: {table.name} has "
            f"{found.rows} rows there and {expected.rows} in the source; copy into an empty "
            "database that nobody writes to"
        )
    return Copied(table.name, found.rows, found.text)


def _side(url: str) -> Side:
    scheme, _, rest = url.partition("://")
    match scheme.partition("+")[0]:
        case "sqlite" if rest.startswith("/"):
            return SqliteTables(rest.partition("?")[0].removeprefix("/"))
        case "postgresql" | "postgres":
            from lapse.databases.postgres import PostgresTables

            return PostgresTables(url)
        case _:
            reason = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
            raise InvalidValueError("FROM", f"{reason}, not {scheme!r:.40}")
