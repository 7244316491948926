"""Reading databases of ADK without changing them: whichever they are, in bounded memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol

from lapse.core.errors import InvalidValueError, StoreRefusedError
from lapse.core.keys import SessionKey
from lapse.databases.report import Question, Report, Seen, group
from lapse.databases.sqlite import SqliteTables
from lapse.databases.tables import check_tables
from lapse.store.schemas import ADK_COLUMNS, Found


class Reader(Protocol):
    """Looks at one database and leaves it as it is."""

    async def report(self, ttl: timedelta, older_than: timedelta = timedelta(0)) -> Report:
        """Count the database's sessions from one snapshot; also those older than `older_than`.

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
        InvalidValueError: the driver is not installed, or no database has such a URL.
    """
    scheme, separator, rest = url.partition("://")
    match scheme.partition("+")[0]:
        case "sqlite" if rest.startswith("/"):
            return SqliteTables(rest.partition("?")[0].removeprefix("/"))
        case "postgresql" | "postgres":
            _need("asyncpg", "postgres")
            from lapse.databases.postgres import PostgresTables

            return PostgresTables(url)
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


class SqlalchemyReader:
    """Reads any database that SQLAlchemy knows: it fetches every session and counts here."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def report(self, ttl: timedelta, older_than: timedelta = timedelta(0)) -> Report:
        question = Question(datetime.now(UTC), ttl, older_than)
        return await asyncio.to_thread(self._report, question)

    async def missing(self, keys: Sequence[SessionKey]) -> list[SessionKey]:
        return await asyncio.to_thread(self._missing, keys)

    def _report(self, question: Question) -> Report:
        import sqlalchemy

        engine = sqlalchemy.create_engine(self._url)
        place = engine.url.render_as_string(hide_password=True)
        try:
            check_tables(self._look(engine), place)
            with engine.connect().execution_options(stream_results=True, yield_per=1000) as taken:
                groups = group(question, self._sessions(taken))
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise StoreRefusedError(
                f"{place}: cannot be read: {error}; look at the database and at its URL"
            ) from error
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
