"""The session services that are measured side by side, by the store they keep sessions in.

A peer is a name and a way to open its service on an empty database, by URL; another store
needs no more than an entry here, its places in `places.py` and its goals in `goals.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
from google.adk.sessions.base_session_service import BaseSessionService

OPERATIONS: Final = {
    "create_session": "create",
    "append_first": "append, first message",
    "append_later": "append, later message",
    "get_empty": "get, empty",
    "get_50": "get, 50 events",
    "list_20": "list of 20",
}

CALLERS: Final = (32, 1)
"""How many callers go on at once."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A service on storage of its own, and how durable its commits are."""

    service: BaseSessionService
    durability: str


@dataclass(frozen=True, slots=True)
class Peer:
    """A session service to measure, in a process of its own.

    The script of a peer without a service answers the same requests by itself. A peer that is
    earlier runs another Lapse, from the source that the run was given, if it was given one.
    """

    name: str
    label: str
    open: Callable[[str], AbstractAsyncContextManager[Opened]] | None
    module: str = "bench.services.service_worker"
    operations: frozenset[str] = frozenset(OPERATIONS)
    callers: tuple[int, ...] = CALLERS
    is_earlier: bool = False


@asynccontextmanager
async def _lapse(url: str) -> AsyncIterator[Opened]:
    from lapse.adk.service import LapseSessionService
    from lapse.store import store_from_url

    async with LapseSessionService(store_from_url(url)) as service:
        if url.startswith("postgresql"):
            durability = await postgres_durability(url)
        else:
            durability = _lapse_durability(file_of(url))
        yield Opened(service, durability)


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[Opened]:
    from google.adk.sessions.database_session_service import DatabaseSessionService
    from sqlalchemy import text

    service = DatabaseSessionService(sqlalchemy_url(url))
    try:
        await service.create_session(app_name="warm", user_id="up")
        if url.startswith("postgresql"):
            durability = await postgres_durability(url)
        else:
            async with service.db_engine.connect() as connection:
                journal = (await connection.execute(text("PRAGMA journal_mode"))).scalar_one()
                level = (await connection.execute(text("PRAGMA synchronous"))).scalar_one()
            durability = _durability(journal, level)
        yield Opened(service, durability)
    finally:
        await service.close()


@asynccontextmanager
async def _sqlite(url: str) -> AsyncIterator[Opened]:
    from google.adk.sessions.sqlite_session_service import SqliteSessionService

    path = file_of(url)
    service = SqliteSessionService(str(path))
    await service.create_session(app_name="warm", user_id="up")
    # It opens a plain connection for every call and sets nothing on it but foreign_keys.
    connection = sqlite3.connect(path)
    journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    connection.close()
    yield Opened(service, _durability(journal, level))


@asynccontextmanager
async def _memory(_url: str) -> AsyncIterator[Opened]:
    from google.adk.sessions.in_memory_session_service import InMemorySessionService

    yield Opened(InMemorySessionService(), "none")


def file_of(url: str) -> Path:
    """Return the file that an SQLite URL names."""
    return Path(url.removeprefix("sqlite:///"))


def sqlalchemy_url(url: str) -> str:
    """Return a URL as SQLAlchemy has it, with its asynchronous driver."""
    scheme, _, rest = url.partition("://")
    driver = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}[scheme]
    return f"{scheme}+{driver}://{rest}"


async def postgres_durability(url: str) -> str:
    """Return what a connection of its own says; no peer sets anything about it."""
    connection = await asyncpg.connect(url)
    try:
        found = {
            name: await connection.fetchval("SELECT current_setting($1)", name)
            for name in ("fsync", "synchronous_commit", "full_page_writes")
        }
    finally:
        await connection.close()
    return ", ".join(f"{name}={value}" for name, value in found.items())


def _lapse_durability(path: Path) -> str:
    from lapse.store.sqlite.schema import connect

    connection = connect(str(path), cache=100)
    try:
        return _durability(
            connection.execute("PRAGMA journal_mode").fetchone()[0],
            connection.execute("PRAGMA synchronous").fetchone()[0],
        )
    finally:
        connection.close()


def _durability(journal: str, level: int) -> str:
    names = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    return f"journal_mode={journal}, synchronous={names[level]}"


PEERS: Final = {
    "sqlite": (
        Peer("lapse", "Lapse on SQLite", _lapse),
        Peer("before", "Lapse before, on SQLite", _lapse, callers=(1,), is_earlier=True),
        Peer("database", "ADK DatabaseSessionService on SQLite", _database),
        Peer("sqlite", "ADK SqliteSessionService", _sqlite),
        Peer("memory", "ADK InMemorySessionService", _memory),
    ),
    "postgres": (
        Peer("lapse", "Lapse on PostgreSQL", _lapse),
        Peer("before", "Lapse before, on PostgreSQL", _lapse, callers=(1,), is_earlier=True),
        Peer("database", "ADK DatabaseSessionService on PostgreSQL", _database),
        Peer(
            "bare",
            "bare `asyncpg`: one INSERT, one SELECT by key",
            None,
            module="bench.services.bare_worker",
            operations=frozenset({"create_session", "get_empty"}),
        ),
    ),
}
