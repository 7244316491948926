"""ADK's tables in an SQLite file, of either format: counted, read page by page, and written to."""

from __future__ import annotations

import asyncio
import sqlite3
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from lapse.core.errors import StoreRefusedError
from lapse.core.keys import SessionKey
from lapse.databases.report import DAYS, Group, Question, Report
from lapse.databases.tables import (
    LOBBY,
    PAGE,
    Pages,
    Row,
    Table,
    Type,
    check_lobby,
    check_tables,
    from_sqlite,
    lobby_columns,
    tables_of,
    to_sqlite,
)
from lapse.store.operation import Dialect
from lapse.store.schemas import Found
from lapse.store.sqlite.schema import connect, is_of_adk_web, look, set_up
from lapse.store.statements import read_statements

_CACHE_KIB: Final = 32 * 1024

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


class SqliteTables:
    """A `Reader`, and a `Side` of a copy; what is read is opened read-only."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def report(self, ttl: timedelta, older_than: timedelta = timedelta(0)) -> Report:
        question = Question(datetime.now(UTC), ttl, older_than)
        return await asyncio.to_thread(self._report, question)

    async def missing(self, keys: Sequence[SessionKey]) -> list[SessionKey]:
        return await asyncio.to_thread(self._missing, keys)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Mapping[Table, Pages]]:
        with closing(open_read_only(self._path)) as connection:
            found = self._checked(connection)
            if found.lapse_version:
                check_lobby(_lobby(connection), self._path)
            tables = tables_of(found.lapse_version)
            added = _STATES_OF_ADK_WEB if is_of_adk_web(connection) else {}
            selected = {LOBBY: lobby_columns(found.lapse_version)}
            yield {
                table: _pages(
                    connection, table, selected.get(table, table.names), added.get(table.name, "")
                )
                for table in tables
            }

    async def count_rows(self) -> int:
        return await asyncio.to_thread(self._count_rows)

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        await asyncio.to_thread(self._write, table, rows)

    async def close(self) -> None:
        """No-op: no connection is kept."""

    def _checked(self, connection: sqlite3.Connection) -> Found:
        found = look(connection)
        if not is_of_adk_web(connection):
            check_tables(found, self._path)
        return found

    def _count_rows(self) -> int:
        with closing(open_read_only(self._path)) as connection:
            total = 0
            for table in tables_of(self._checked(connection).lapse_version):
                (rows,) = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()  # noqa: S608 - names of ours
                total += rows
            return total

    def _report(self, question: Question) -> Report:
        try:
            with closing(open_read_only(self._path)) as connection:
                found = self._checked(connection)
                (pages,) = connection.execute("PRAGMA page_count").fetchone()
                (page,) = connection.execute("PRAGMA page_size").fetchone()
                groups = _groups(connection, question)
                lobby = _lobby(connection) if found.lapse_version else {}
        except sqlite3.Error as error:
            raise StoreRefusedError(
                f"{self._path}: cannot be read: {error}; let this user read it, or restore a backup"
            ) from error
        return Report(question, self._path, pages * page, groups, lobby)

    def _missing(self, keys: Sequence[SessionKey]) -> list[SessionKey]:
        with closing(open_read_only(self._path)) as connection:
            (lobby,) = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE name = 'lapse_lobby'"
            ).fetchone()
            asked = "SELECT 1 FROM sessions WHERE app_name = ?1 AND user_id = ?2 AND id = ?3"
            if lobby:
                asked += (
                    " UNION ALL SELECT 1 FROM lapse_lobby"
                    " WHERE app_name = ?1 AND user_id = ?2 AND session_id = ?3"
                )
            return [key for key in keys if connection.execute(asked, key).fetchone() is None]

    def _write(self, table: Table, rows: Sequence[Row]) -> None:
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
                raise StoreRefusedError(
                    f"{self._path}: cannot be written: {error}; let this user write the file and "
                    "its folder"
                ) from error


async def _pages(connection: sqlite3.Connection, table: Table, selected: str, added: str) -> Pages:
    query = f"SELECT {selected} FROM {table.name}{added}"  # noqa: S608 - names of ours
    cursor = connection.execute(query)
    while found := await asyncio.to_thread(cursor.fetchmany, PAGE):
        yield [_converted(from_sqlite, row, table) for row in found]


def _converted(convert: Callable[[Any, Type], Any], row: Sequence[Any], table: Table) -> Row:
    return tuple(convert(value, kind) for value, (_, kind) in zip(row, table.columns, strict=True))


def _groups(connection: sqlite3.Connection, question: Question) -> list[Group]:
    for name, limits in (("age_bucket", question.ages), ("delay_bucket", question.delays)):
        bucket: Callable[[float], int] = partial(bisect_right, limits)
        connection.create_function(name, 1, bucket, deterministic=True)
    rows = connection.execute(
        read_statements(Dialect.SQLITE)["report"],
        {"moment": question.moment.timestamp(), "day_seconds": DAYS * 86_400.0},
    )
    return [Group.of(row, _from_seconds) for row in rows]


def _from_seconds(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _lobby(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(
        tuple(row)
        for row in connection.execute("SELECT status, count(*) FROM lapse_lobby GROUP BY status")
    )


def open_read_only(path: str) -> sqlite3.Connection:
    """Open a file so that nothing can be written to it.

    Raises:
        StoreRefusedError: there is no such file, or it is no database.
    """
    if not Path(path).is_file():
        raise StoreRefusedError(f"{path}: there is no such file; name a database that exists")
    where = f"file:{quote(path)}?mode=ro"
    try:
        connection = _connect(where)
    except sqlite3.OperationalError:
        # A file in write-ahead mode wants to make another beside it. Where it may not, nobody
        # writes to this one either.
        connection = _connect(f"{where}&immutable=1")
    except sqlite3.DatabaseError as error:
        raise StoreRefusedError(f"{path}: is not an SQLite database: {error}; name one") from error
    set_up(connection)
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=5, check_same_thread=False
    )
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master")
    except BaseException:
        connection.close()
        raise
    return connection
