"""The session services that are measured side by side.

A peer is a name and a way to open its service on fresh storage in a directory; another store
needs no more than an entry here, and its goals in `goals.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.adk.sessions.base_session_service import BaseSessionService


@dataclass(frozen=True, slots=True)
class Opened:
    """A service on storage of its own, and how durable its commits are."""

    service: BaseSessionService
    durability: str


@dataclass(frozen=True, slots=True)
class Peer:
    """A session service to measure."""

    name: str
    label: str
    open: Callable[[Path], AbstractAsyncContextManager[Opened]]


@asynccontextmanager
async def _lapse(directory: Path) -> AsyncIterator[Opened]:
    from lapse.sessions import LapseSessionService
    from lapse.stores import store_from_url
    from lapse.stores.sqlite.schema import connect

    path = directory / "lapse.db"
    async with LapseSessionService(store_from_url(f"sqlite:///{path}")) as service:
        connection = connect(str(path), cache=100)
        durability = _durability(
            connection.execute("PRAGMA journal_mode").fetchone()[0],
            connection.execute("PRAGMA synchronous").fetchone()[0],
        )
        connection.close()
        yield Opened(service, durability)


@asynccontextmanager
async def _database(directory: Path) -> AsyncIterator[Opened]:
    from google.adk.sessions.database_session_service import DatabaseSessionService
    from sqlalchemy import text

    service = DatabaseSessionService(f"sqlite+aiosqlite:///{directory / 'database.db'}")
    try:
        await service.create_session(app_name="warm", user_id="up")
        async with service.db_engine.connect() as connection:
            journal = (await connection.execute(text("PRAGMA journal_mode"))).scalar_one()
            level = (await connection.execute(text("PRAGMA synchronous"))).scalar_one()
        yield Opened(service, _durability(journal, level))
    finally:
        await service.close()


@asynccontextmanager
async def _sqlite(directory: Path) -> AsyncIterator[Opened]:
    from google.adk.sessions.sqlite_session_service import SqliteSessionService

    path = directory / "sqlite.db"
    service = SqliteSessionService(str(path))
    await service.create_session(app_name="warm", user_id="up")
    # It opens a plain connection for every call and sets nothing on it but foreign_keys.
    connection = sqlite3.connect(path)
    journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    connection.close()
    yield Opened(service, _durability(journal, level))


@asynccontextmanager
async def _memory(_directory: Path) -> AsyncIterator[Opened]:
    from google.adk.sessions.in_memory_session_service import InMemorySessionService

    yield Opened(InMemorySessionService(), "none")


def _durability(journal: str, level: int) -> str:
    names = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    return f"journal_mode={journal}, synchronous={names[level]}"


PEERS: Final = (
    Peer("lapse", "Lapse on SQLite", _lapse),
    Peer("database", "ADK DatabaseSessionService on SQLite", _database),
    Peer("sqlite", "ADK SqliteSessionService", _sqlite),
    Peer("memory", "ADK InMemorySessionService", _memory),
)
