"""Databases of version 0, as a real ADK 1.20 left them: databases/v0/make_with_old_adk.py."""

import base64
import json
import sqlite3
from contextlib import closing, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path

from google.adk.sessions.database_session_service import DatabaseSessionService

import postgres
from postgres import blank

DUMPS = Path(__file__).parents[1] / "databases" / "v0"
KINDS = ("sqlite", "postgres")
SESSIONS = (
    ("shop", "ada", "empty"),
    ("shop", "ada", "with-state"),
    ("shop", "ada", "talk-" + "1" * 30),
    ("shop", "bob/'\"%", "täg-🌍"),
    ("zoo", "ada", "one"),
)
BEGAN = 1_730_000_000.123456


@cache
def dump(name):
    return json.loads((DUMPS / f"adk-1.20-{name}.json").read_text("utf-8"))


@contextmanager
def v0_database(kind, folder, name=None):
    """Yield the URL of a database with what ADK 1.20 has written."""
    tables = dump(name or kind)["tables"]
    if kind == "sqlite":
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / "old.db")) as connection, connection:
            for table in tables:
                for statement in (table["ddl"], *table["indexes"]):
                    connection.execute(statement)
                marks = ", ".join("?" * len(table["columns"]))
                connection.executemany(
                    f"INSERT INTO {table['name']} VALUES ({marks})",
                    [[_blob(value) for value in row] for row in table["rows"]],
                )
        yield f"sqlite:///{folder}/old.db"
        return
    with blank(_filled(name or kind)) as url:
        yield url


@cache
def _filled(name):
    """Return the name of a PostgreSQL database with a dump, for others to be made like it."""
    made = f"v0_{name}"
    postgres.run(postgres.server().format("postgres"), f"CREATE DATABASE {made}")
    url = postgres.server().format(made)
    for table in dump(name)["tables"]:
        postgres.run(url, table["ddl"], *table["indexes"])
        marks = ", ".join(f"${n + 1}" for n in range(len(table["columns"])))
        for row in table["rows"]:
            values = [
                _typed(value, column) for value, column in zip(row, table["columns"], strict=True)
            ]
            postgres.rows(url, f"INSERT INTO {table['name']} VALUES ({marks})", *values)
    return made


def _blob(value):
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def _typed(value, column):
    if column in {"timestamp", "create_time", "update_time"}:
        return datetime.fromisoformat(value)
    return _blob(value)


def stock(url):
    """Return the newest ADK's own service on a database; it reads and writes version 0, too."""
    driver = "asyncpg" if url.startswith("postgres") else "aiosqlite"
    return DatabaseSessionService(url.replace("://", f"+{driver}://", 1))


async def read_all(service, sessions=SESSIONS):
    """Return what a service reads of each session: its events, its state, its last update."""
    return [
        await service.get_session(app_name=app, user_id=user, session_id=session)
        for app, user, session in sessions
    ]


def query(url, sql, *arguments):
    """Return the rows of a query."""
    if url.startswith("postgres"):
        return postgres.rows(url, sql, *arguments)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as connection:
        return [tuple(row) for row in connection.execute(sql, arguments)]


def execute(url, *statements):
    """Run statements."""
    if url.startswith("postgres"):
        postgres.run(url, *statements)
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


TABLES = ("app_states", "user_states", "sessions", "events")


def content(url, prefix="", tables=TABLES):
    """Return every row of ADK's tables."""
    row = "t::text" if url.startswith("postgres") else "*"
    return {
        name: sorted(map(repr, query(url, f"SELECT {row} FROM {prefix}{name} AS t")))
        for name in tables
    }
