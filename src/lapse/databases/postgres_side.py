"""A PostgreSQL database that a copy reads, or writes to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from lapse.core.errors import StoreRefusedError
from lapse.core.keys import SHOWN_ID
from lapse.databases.copy import PAGE, Pages
from lapse.databases.readers import check_report
from lapse.databases.tables import ADK_TABLES, LOBBY, Row, Table, from_postgres
from lapse.store.postgres.connections import NOT_NOW, plain_url, shown_url, unavailable
from lapse.store.postgres.schema import look


class _PostgresPages:
    def __init__(self, connection: asyncpg.Connection, tables: Sequence[Table]) -> None:
        self.tables = tables
        self._connection = connection

    async def read(self, table: Table) -> AsyncIterator[list[Row]]:
        """Return a table's rows, a page at a time."""
        query = f"SELECT {table.names} FROM {table.name}"  # noqa: S608 - names of ours
        cursor = await self._connection.cursor(query)
        kinds = [kind for _, kind in table.columns]
        while found := await cursor.fetch(PAGE):
            yield [tuple(map(from_postgres, row, kinds)) for row in found]


class PostgresSide:
    """A database, of ADK's tables to be read, of a store's to be written."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._writing: asyncpg.Connection | None = None

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Pages]:
        """Yield the database as it is now."""
        connection = await self._connect()
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                found = await look(connection)
                check_report(found, shown_url(self._url))
                tables = (*ADK_TABLES, LOBBY) if found.lapse_version else ADK_TABLES
                yield _PostgresPages(connection, tables)
        finally:
            await connection.close()

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Write rows in one transaction."""
        if self._writing is None:
            self._writing = await self._connect()
        places = ", ".join(f"${number + 1}" for number in range(len(table.columns)))
        statement = (
            f"INSERT INTO {table.name} ({table.names}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608 - names of ours
        )
        try:
            await self._writing.executemany(statement, rows)
        except asyncpg.DataError as error:
            if len(rows) > 1:
                for row in rows:
                    await self.write(table, [row])
                return
            shown = " ".join(str(part)[:SHOWN_ID] for part in rows[0][:3])
            raise StoreRefusedError(
                f"{shown_url(self._url)}: PostgreSQL cannot hold a row of {table.name} ({shown}…): "
                f"{error}; change it in the source"
            ) from error
        except NOT_NOW as error:
            raise unavailable(error) from error

    async def close(self) -> None:
        """Let go of the connection."""
        if self._writing is not None:
            await self._writing.close()

    async def _connect(self) -> asyncpg.Connection:
        try:
            return await asyncpg.connect(plain_url(self._url), timeout=10)
        except NOT_NOW as error:
            raise unavailable(error) from error
        except asyncpg.PostgresError as error:
            raise StoreRefusedError(f"{shown_url(self._url)}: {error}") from error
