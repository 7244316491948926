"""Reading databases of ADK without changing them: whichever they are, in bounded memory."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from lapse.core.errors import InvalidValueError, StoreRefusedError
from lapse.core.keys import SessionKey
from lapse.databases.report import DAYS, Group, Kind, Question, Report, Seen, group
from lapse.store.operation import Dialect
from lapse.store.schemas import ADK_COLUMNS, Found, check_adk
from lapse.store.statements import read_statements

_DAY_SECONDS: Final = DAYS * 86_400.0
_CACHE_KIB: Final = 32 * 1024


class Reader(Protocol):
    """Looks at one database and leaves it as it is."""

    async def report(self, ttl: timedelta, older_than: timedelta = timedelta(0)) -> Report:
        """Count the database's sessions from one snapshot, those of an age of one's own, too.

        Raises:
            StoreRefusedError: it is not ADK's, or of another version than 1.
            StoreUnavailableError: it does not answer.
        """
        ...

    async def missing(self, keys: Sequence[SessionKey]) -> list[SessionKey]:
        """Return which of these sessions are neither in ADK's tables nor in the lobby."""
        ...


def reader_of(url: str) -> Reader:
    """Return a reader of the database that a URL names.

    SQLite files of either format of ADK's, PostgreSQL, and whatever else SQLAlchemy knows
    (`mysql://`, `mariadb://`).

    Raises:
        InvalidValueError: it cannot be read, for want of a driver or as it is no URL.
    """
    scheme, separator, rest = url.partition("://")
    match scheme.partition("+")[0]:
        case "sqlite" if rest.startswith("/"):
            return SqliteReader(rest.partition("?")[0].removeprefix("/"))
        case "postgresql" | "postgres":
            _need("asyncpg", "postgres")
            from lapse.databases.postgres_reader import PostgresReader

            return PostgresReader(url)
        case "mysql" | "mariadb":
            _need("sqlalchemy", "mysql")
            _need("pymysql", "mysql")
            return SqlalchemyReader(f"{scheme.partition('+')[0]}+pymysql{separator}{rest}")
        case _:
            reason = (
                "must be sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE or "
                "mysql://USER:PASSWORD@HOST/DATABASE"
            )
            # Without "://" all of it is the scheme, a password too.
            given = f", not {scheme!r:.40}" if separator else ""
            raise InvalidValueError("database URL", reason + given)


def _need(module: str, extra: str) -> None:
    if find_spec(module) is None:
        reason = f"needs {module}: pip install 'lapse[{extra}]'"
        raise InvalidValueError("database URL", reason)


def check_report(found: Found, place: str) -> None:
    """Raise StoreRefusedError where there is nothing of ADK's to count."""
    if not any(found.columns[table] for table in ADK_COLUMNS):
        raise StoreRefusedError(f"{place}: holds no sessions of ADK; is it the right database?")
    check_adk(found, place)


class _Blocking(ABC):
    """A reader whose driver blocks: it works in a thread."""

    async def report(self, ttl: timedelta, older_than: timedelta = timedelta(0)) -> Report:
        """Count the database's sessions."""
        question = Question(datetime.now(UTC), ttl, older_than)
        return await asyncio.to_thread(self._report, question)

    async def missing(self, keys: Sequence[SessionKey]) -> list[SessionKey]:
        """Return which sessions are not there."""
        return await asyncio.to_thread(self._missing, keys)

    @abstractmethod
    def _report(self, question: Question) -> Report: ...

    @abstractmethod
    def _missing(self, keys: Sequence[SessionKey]) -> list[SessionKey]: ...


class SqliteReader(_Blocking):
    """Reads an SQLite file, opened read-only, of either of ADK's formats."""

    def __init__(self, path: str) -> None:
        self._path = path

    def _report(self, question: Question) -> Report:
        from lapse.store.sqlite.schema import is_of_adk_web, look

        try:
            with closing(open_read_only(self._path)) as connection:
                found = look(connection)
                if not is_of_adk_web(connection):
                    check_report(found, self._path)
                (pages,) = connection.execute("PRAGMA page_count").fetchone()
                (page,) = connection.execute("PRAGMA page_size").fetchone()
                groups = self._groups(connection, question)
                lobby = _lobby(connection) if found.lapse_version else {}
        except sqlite3.Error as error:
            raise StoreRefusedError(f"{self._path}: cannot be read: {error}") from error
        return Report(question, self._path, pages * page, groups, lobby)

    @staticmethod
    def _groups(connection: sqlite3.Connection, question: Question) -> list[Group]:
        for name, limits in (("age_bucket", question.ages), ("delay_bucket", question.delays)):
            bucket: Callable[[float], int] = partial(bisect_right, limits)
            connection.create_function(name, 1, bucket, deterministic=True)
        rows = connection.execute(
            read_statements(Dialect.SQLITE)["report"],
            {"moment": question.moment.timestamp(), "day_seconds": _DAY_SECONDS},
        )
        return [
            Group(
                row["app_name"],
                Kind(row["kind"]),
                row["age"],
                row["day"],
                row["delay"],
                row["sessions"],
                row["bytes"],
                datetime.fromtimestamp(row["oldest"], UTC),
                None
                if row["latest_message"] is None
                else datetime.fromtimestamp(row["latest_message"], UTC),
            )
            for row in rows
        ]

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


def open_read_only(path: str) -> sqlite3.Connection:
    """Open a file so that nothing can be written to it.

    Raises:
        StoreRefusedError: there is no such file, or it is no database.
    """
    if not Path(path).is_file():
        raise StoreRefusedError(f"{path}: there is no such file")
    from lapse.store.sqlite.schema import set_up

    where = f"file:{quote(path)}?mode=ro"
    try:
        connection = _connect(where)
    except sqlite3.OperationalError:
        # A file in write-ahead mode wants to make another beside it. Where it may not, nobody
        # writes to this one either.
        connection = _connect(f"{where}&immutable=1")
    except sqlite3.DatabaseError as error:
        raise StoreRefusedError(f"{path}: is not an SQLite database: {error}") from error
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


def _lobby(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(
        tuple(row)
        for row in connection.execute("SELECT status, count(*) FROM lapse_lobby GROUP BY status")
    )


class SqlalchemyReader(_Blocking):
    """Reads any database that SQLAlchemy knows: every session comes here to be counted."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _report(self, question: Question) -> Report:
        import sqlalchemy

        engine = sqlalchemy.create_engine(self._url)
        place = engine.url.render_as_string(hide_password=True)
        try:
            check_report(self._look(engine), place)
            with engine.connect().execution_options(stream_results=True, yield_per=1000) as taken:
                groups = group(question, self._sessions(taken))
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise StoreRefusedError(f"{place}: cannot be read: {error}") from error
        finally:
            engine.dispose()
        return Report(question, place, None, groups, {})

    @staticmethod
    def _look(engine: Any) -> Found:
        import sqlalchemy

        seen = sqlalchemy.inspect(engine)
        present = set(seen.get_table_names())
        columns = {
            table: {column["name"] for column in seen.get_columns(table)}
            if table in present
            else set()
            for table in ADK_COLUMNS
        }
        version = None
        if "adk_internal_metadata" in present:
            query = sqlalchemy.text(
                "SELECT value FROM adk_internal_metadata WHERE value IS NOT NULL"
            )
            with engine.connect() as connection:
                version = connection.execute(query).scalar()
        return Found(columns, version, 0)

    @staticmethod
    def _sessions(connection: Any) -> Iterator[Seen]:
        import sqlalchemy

        # Ordered by the primary key alone, which every database reads in order anyway.
        rows = connection.execute(
            sqlalchemy.text(
                "SELECT s.app_name, s.user_id, s.id, s.state, s.create_time, "
                "e.timestamp AS event_time, e.event_data "
                "FROM sessions s LEFT JOIN events e ON e.app_name = s.app_name "
                "AND e.user_id = s.user_id AND e.session_id = s.id "
                "ORDER BY s.app_name, s.user_id, s.id"
            )
        )
        for _, found in groupby(rows, attrgetter("app_name", "user_id", "id")):
            parts = list(found)
            head = parts[0]
            yield Seen(
                head.app_name,
                head.id,
                _moment(head.create_time),
                _text(head.state),
                [
                    (
                        _moment(part.event_time),
                        json.loads(_text(part.event_data)) or {},
                        len(_text(part.event_data)),
                    )
                    for part in parts
                    if part.event_time is not None
                ],
            )

    def _missing(self, keys: Sequence[SessionKey]) -> list[SessionKey]:
        import sqlalchemy

        asked = sqlalchemy.text(
            "SELECT 1 FROM sessions WHERE app_name = :app AND user_id = :user AND id = :id"
        )
        engine = sqlalchemy.create_engine(self._url)
        try:
            with engine.connect() as connection:
                return [
                    key
                    for key in keys
                    if connection.execute(
                        asked, {"app": key.app_name, "user": key.user_id, "id": key.session_id}
                    ).first()
                    is None
                ]
        finally:
            engine.dispose()


def _moment(value: datetime | str) -> datetime:
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
