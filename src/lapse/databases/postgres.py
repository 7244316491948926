"""ADK's tables in a PostgreSQL database: counted, read page by page, and written to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, timedelta
from typing import Final

import asyncpg

from lapse.core.errors import StoreRefusedError
from lapse.core.keys import SHOWN_ID, SessionKey
from lapse.databases.report import DAYS, Group, Question, Report
from lapse.databases.tables import (
    LOBBY,
    PAGE,
    Pages,
    Row,
    Table,
    check_lobby,
    check_tables,
    from_postgres,
    lobby_columns,
    tables_of,
)
from lapse.store.postgres.call import STATEMENTS
from lapse.store.postgres.connections import (
    CONNECTING,
    NOT_NOW,
    not_connected,
    plain_url,
    unavailable,
)
from lapse.store.postgres.place import PARTING
from lapse.store.postgres.schema import look
from lapse.store.postgres.transaction import transaction
from lapse.store.postgres.values import from_naive
from lapse.store.urls import place_of

_MISSING: Final = """\
SELECT a, u, s FROM unnest($1::varchar[], $2::varchar[], $3::varchar[]) AS k (a, u, s)
WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE app_name = a AND user_id = u AND id = s)
"""
_NOT_IN_LOBBY: Final = """\
  AND NOT EXISTS (
    SELECT 1 FROM lapse_lobby WHERE app_name = a AND user_id = u AND session_id = s
  )
"""


class PostgresTables:
    """A `Reader`, and a `Side` of a copy; what is read is read in one read-only transaction."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._place = place_of(url)
        self._writing: asyncpg.Connection | None = None

    async def report(self, ttl: timedelta, older_than: timedelta = timedelta(0)) -> Report:
        async with self._reading() as connection:
            found = await look(connection)
            check_tables(found, self._place)
            moment = await connection.fetchval("SELECT clock_timestamp()")
            question = Question(moment, ttl, older_than)
            statement = STATEMENTS["report"]
            arguments = {
                "moment": moment.astimezone(UTC).replace(tzinfo=None),
                "day_seconds": DAYS * 86_400.0,
                "ages": question.ages,
                "delays": question.delays,
            }
            rows = await connection.fetch(
                statement.sql, *(arguments[name] for name in statement.names)
            )
            size = await connection.fetchval("SELECT pg_database_size(current_database())")
            lobby = await _lobby(connection) if found.lapse_version else {}
        return Report(
            question, self._place, size, [Group.of(row, from_naive) for row in rows], lobby
        )

    async def missing(self, keys: Sequence[SessionKey]) -> list[SessionKey]:
        if not keys:
            return []
        async with self._reading() as connection:
            asked = _MISSING
            if (await look(connection)).lapse_version:
                asked += _NOT_IN_LOBBY
            found = await connection.fetch(asked, *map(list, zip(*keys, strict=True)))
            return [SessionKey(*row) for row in found]

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Mapping[Table, Pages]]:
        async with self._reading() as connection:
            found = await look(connection)
            check_tables(found, self._place)
            if found.lapse_version:
                check_lobby(await _lobby(connection), self._place)
            tables = tables_of(found.lapse_version)
            selected = {LOBBY: lobby_columns(found.lapse_version)}
            yield {
                table: _pages(connection, table, selected.get(table, table.names))
                for table in tables
            }

    async def count_rows(self) -> int:
        async with self._reading() as connection:
            found = await look(connection)
            check_tables(found, self._place)
            total = 0
            for table in tables_of(found.lapse_version):
                total += await connection.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608 - names of ours
            return total

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
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
                f"{self._place}: PostgreSQL cannot hold a row of {table.name} ({shown}…): "
                f"{error}; change it in the source"
            ) from error
        except NOT_NOW as error:
            raise unavailable(error, self._place) from error

    async def close(self) -> None:
        if self._writing is not None:
            await _part(self._writing)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await self._connect()
        try:
            async with transaction(connection, isolation="repeatable_read", readonly=True):
                yield connection
        finally:
            await _part(connection)

    async def _connect(self) -> asyncpg.Connection:
        try:
            return await asyncpg.connect(plain_url(self._url), timeout=10)
        except CONNECTING as error:
            raise not_connected(error, self._place) from None


async def _part(connection: asyncpg.Connection) -> None:
    """Close a connection, with a word to the server unless that is silent."""
    with suppress(*NOT_NOW):
        await connection.close(timeout=PARTING.total_seconds())


async def _pages(connection: asyncpg.Connection, table: Table, selected: str) -> Pages:
    query = f"SELECT {selected} FROM {table.name}"  # noqa: S608 - names of ours
    cursor = await connection.cursor(query)
    kinds = [kind for _, kind in table.columns]
    while found := await cursor.fetch(PAGE):
        yield [tuple(map(from_postgres, row, kinds)) for row in found]


async def _lobby(connection: asyncpg.Connection) -> dict[str, int]:
    counted = "SELECT status, count(*) AS sessions FROM lapse_lobby GROUP BY status"
    return {row["status"]: row["sessions"] for row in await connection.fetch(counted)}
