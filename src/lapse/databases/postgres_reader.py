"""Reading a PostgreSQL database of ADK without changing it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, timedelta
from typing import Final

import asyncpg

from lapse.core.errors import StoreRefusedError
from lapse.core.keys import SessionKey
from lapse.databases.readers import check_report
from lapse.databases.report import DAYS, Group, Kind, Question, Report
from lapse.store.postgres.call import STATEMENTS
from lapse.store.postgres.connections import NOT_NOW, plain_url, shown_url, unavailable
from lapse.store.postgres.schema import look

_MISSING: Final = """\
SELECT a, u, s FROM unnest($1::varchar[], $2::varchar[], $3::varchar[]) AS k (a, u, s)
WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE app_name = a AND user_id = u AND id = s)
"""
_NOT_IN_LOBBY: Final = """\
  AND NOT EXISTS (
    SELECT 1 FROM lapse_lobby WHERE app_name = a AND user_id = u AND session_id = s
  )
"""


class PostgresReader:
    """Reads a database in one read-only transaction."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def report(self, ttl: timedelta, older_than: timedelta = timedelta(0)) -> Report:
        """Count the database's sessions."""
        place = shown_url(self._url)
        async with self._snapshot() as connection:
            found = await look(connection)
            check_report(found, place)
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
        return Report(question, place, size, [_group(row) for row in rows], lobby)

    async def missing(self, keys: Sequence[SessionKey]) -> list[SessionKey]:
        """Return which sessions are not there."""
        if not keys:
            return []
        async with self._snapshot() as connection:
            asked = _MISSING
            if (await look(connection)).lapse_version:
                asked += _NOT_IN_LOBBY
            found = await connection.fetch(asked, *map(list, zip(*keys, strict=True)))
            return [SessionKey(*row) for row in found]

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[asyncpg.Connection]:
        try:
            connection = await asyncpg.connect(plain_url(self._url), timeout=10)
        except NOT_NOW as error:
            raise unavailable(error) from error
        except asyncpg.PostgresError as error:
            raise StoreRefusedError(f"{shown_url(self._url)}: {error}") from error
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield connection
        finally:
            await connection.close()


async def _lobby(connection: asyncpg.Connection) -> dict[str, int]:
    counted = "SELECT status, count(*) AS sessions FROM lapse_lobby GROUP BY status"
    return {row["status"]: row["sessions"] for row in await connection.fetch(counted)}


def _group(row: asyncpg.Record) -> Group:
    latest = row["latest_message"]
    return Group(
        row["app_name"],
        Kind(row["kind"]),
        row["age"],
        row["day"],
        row["delay"],
        row["sessions"],
        row["bytes"],
        row["oldest"].replace(tzinfo=UTC),
        None if latest is None else latest.replace(tzinfo=UTC),
    )
