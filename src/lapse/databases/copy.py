"""Copying a whole database into another store, page by page, and comparing the two."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any, Final, Protocol

from lapse.core.errors import InvalidValueError, StoreRefusedError
from lapse.databases.readers import check_report, open_read_only
from lapse.databases.tables import (
    ADK_TABLES,
    LOBBY,
    Checksum,
    Row,
    Table,
    Type,
    from_sqlite,
    to_sqlite,
)
from lapse.overview.store import OverviewStore
from lapse.store import store_from_url

PAGE: Final = 1000
"""Rows that one transaction writes."""


@dataclass(frozen=True, slots=True)
class Copied:
    """One table: how many rows, and the checksum that both sides have of them."""

    table: str
    rows: int
    checksum: str


class Side(Protocol):
    """A database that a copy reads, or writes to."""

    def snapshot(self) -> AbstractAsyncContextManager[Pages]:
        """Return a look at the database as it is at one moment."""
        ...

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Write rows, those that are there already left alone, in one transaction."""
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...


class Pages(Protocol):
    """A database at one moment."""

    tables: Sequence[Table]

    def read(self, table: Table) -> AsyncIterator[list[Row]]:
        """Return a table's rows, a page at a time."""
        ...


async def copy_database(
    source: str, target: str, *, on_progress: Callable[[int], None] = lambda _: None
) -> list[Copied]:
    """Copy every session, event, state and record of the lobby from one database to another.

    Both of ADK's SQLite formats and PostgreSQL can be read. The target is made ready as a
    store. Rows that it holds already are left alone, so that a copy that was stopped goes on
    with the same call; in the end both sides are counted and compared.

    Raises:
        InvalidValueError: one of the URLs cannot be.
        StoreRefusedError: one of them is no database of ADK's, the target cannot hold a value
            of the source, or the target differs in the end: it held something else before, or
            was written to meanwhile.
        StoreUnavailableError: one does not answer.
    """
    if source == target:
        raise InvalidValueError("TO", "must be another database than FROM")
    store = store_from_url(target)
    reading = _side(source)
    try:
        async with reading.snapshot() as pages:
            await store.open()
            writing = _side(target)
            try:
                sums = [
                    await _copy_table(pages, table, writing, on_progress) for table in pages.tables
                ]
                await OverviewStore(store).recount()
                return [await _compared(writing, found, target) for found in sums]
            finally:
                await writing.close()
    finally:
        await store.close()
        await reading.close()


async def _copy_table(
    pages: Pages, table: Table, writing: Side, on_progress: Callable[[int], None]
) -> tuple[Table, Checksum]:
    found = Checksum(table.columns)
    async for rows in pages.read(table):
        await writing.write(table, rows)
        await asyncio.to_thread(found.add, rows)
        on_progress(found.rows)
    return table, found


async def _compared(side: Side, source: tuple[Table, Checksum], place: str) -> Copied:
    table, expected = source
    found = Checksum(table.columns)
    async with side.snapshot() as pages:
        async for rows in pages.read(table):
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
            return SqliteSide(rest.partition("?")[0].removeprefix("/"))
        case "postgresql" | "postgres":
            from lapse.databases.postgres_side import PostgresSide

            return PostgresSide(url)
        case _:
            reason = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
            raise InvalidValueError("FROM", f"{reason}, not {scheme!r:.40}")


_STATES_OF_ADK_WEB: Final = {
    # There, rows of state are made when there is state; ADK's other service asks for them.
    "app_states": """
        UNION ALL SELECT app_name, '{}', min(create_time) FROM sessions
        WHERE app_name NOT IN (SELECT app_name FROM app_states) GROUP BY app_name
    """,
    "user_states": """
        UNION ALL SELECT app_name, user_id, '{}', min(create_time) FROM sessions
        WHERE (app_name, user_id) NOT IN (SELECT app_name, user_id FROM user_states)
        GROUP BY app_name, user_id
    """,
}


class _SqlitePages:
    def __init__(
        self, connection: sqlite3.Connection, tables: Sequence[Table], *, web: bool
    ) -> None:
        self.tables = tables
        self._connection = connection
        self._web = web

    async def read(self, table: Table) -> AsyncIterator[list[Row]]:
        """Return a table's rows, a page at a time."""
        query = f"SELECT {table.names} FROM {table.name}"  # noqa: S608 - names of ours
        if self._web:
            query += _STATES_OF_ADK_WEB.get(table.name, "")
        cursor = self._connection.execute(query)
        while found := await asyncio.to_thread(cursor.fetchmany, PAGE):
            yield [_converted(from_sqlite, row, table) for row in found]


class SqliteSide:
    """An SQLite file: of either format to be read, of the store's to be written."""

    def __init__(self, path: str) -> None:
        self._path = path

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Pages]:
        """Yield the file as it is now."""
        from lapse.store.sqlite.schema import is_of_adk_web, look

        with closing(open_read_only(self._path)) as connection:
            found, web = look(connection), is_of_adk_web(connection)
            if not web:
                check_report(found, self._path)
            tables = (*ADK_TABLES, LOBBY) if found.lapse_version else ADK_TABLES
            yield _SqlitePages(connection, tables, web=web)

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Write rows in one transaction."""
        await asyncio.to_thread(self._write, table, rows)

    def _write(self, table: Table, rows: Sequence[Row]) -> None:
        from lapse.store.sqlite.schema import connect

        places = ", ".join("?" * len(table.columns))
        statement = f"INSERT INTO {table.name} ({table.names}) VALUES ({places}) "  # noqa: S608 - names of ours
        with closing(connect(self._path, cache=4000)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(
                    statement + "ON CONFLICT DO NOTHING",
                    [_converted(to_sqlite, row, table) for row in rows],
                )
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreRefusedError(f"{self._path}: cannot be written: {error}") from error

    async def close(self) -> None:
        """Do nothing: no connection is kept."""


def _converted(convert: Callable[[Any, Type], Any], row: Sequence[Any], table: Table) -> Row:
    return tuple(convert(value, kind) for value, (_, kind) in zip(row, table.columns, strict=True))
