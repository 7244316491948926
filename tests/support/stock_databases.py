"""Databases as stock ADK leaves them: filled once, and copied for each test."""

import shutil
import sqlite3
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai.types import Content, Part

import postgres
from postgres import blank

OWNER = {"app_name": "shop", "user_id": "ada"}


def words(text="hi", **more):
    return Event(author="user", content=Content(role="user", parts=[Part(text=text)]), **more)


def greeting(text="Welcome", **more):
    return Event(author="bot", content=Content(role="model", parts=[Part(text=text)]), **more)


def patch(**state):
    return Event(author="user", invocation_id="p-1", actions=EventActions(state_delta=state))


async def fill(service: BaseSessionService) -> None:
    """Make 4 empty sessions of 2 apps, 3 used ones, 2 greeted ones, and one of every other kind."""
    for name in ("e1", "e2", "e3"):
        await service.create_session(**OWNER, session_id=name)
    await service.create_session(app_name="zoo", user_id="bob", session_id="e4")
    for name in ("u1", "u2", "u3"):
        used = await service.create_session(**OWNER, session_id=name, state={"user:n": 1})
        await service.append_event(used, patch(f=1e22, g=0.1, é="ü"))
        await service.append_event(used, words(f"hello {name}"))
        await service.append_event(used, words("and more"))
    await service.create_session(**OWNER, session_id="s1", state={"a": [1, None, {"b": 1.5}]})
    for name in ("g1", "g2"):
        greeted = await service.create_session(**OWNER, session_id=name)
        await service.append_event(greeted, greeting())
    await service.append_event(
        greeted, greeting("Are you there?", actions=EventActions(state_delta={"n": 1}))
    )
    patched = await service.create_session(**OWNER, session_id="p1")
    await service.append_event(patched, patch(theme="dark"))
    asked = await service.create_session(**OWNER, session_id="w1")
    confirmation = {"call-1": ToolConfirmation(hint="sure?")}
    actions = EventActions(requested_tool_confirmations=confirmation)
    await service.append_event(asked, Event(author="bot", actions=actions))
    await service.create_session(**OWNER, session_id="adk-eval-session-1")


COUNTS = {
    "empty": 4, "used": 3, "agentOnly": 2,
    "withState": 1, "withEvents": 1, "awaiting": 1, "evaluation": 1,
}  # fmt: skip


@contextmanager
def place_of(kind: str, folder: Path):
    """Yield the URL of an empty database, and how ADK's own service opens it."""
    match kind:
        case "postgres":
            with blank() as url:
                yield url, lambda: DatabaseSessionService(url.replace("://", "+asyncpg://", 1))
        case "sqlite":
            url = f"sqlite:///{folder}/stock.db"
            yield url, lambda: DatabaseSessionService(url.replace("://", "+aiosqlite://", 1))
        case "adk-web":
            url = f"sqlite:///{folder}/session.db"
            yield url, lambda: SqliteSessionService(db_path=f"{folder}/session.db")


def contents(url: str) -> object:
    """Return all there is in a database."""
    if url.startswith("sqlite"):
        return Path(url.removeprefix("sqlite:///")).read_bytes()
    return [
        postgres.rows(url, f"SELECT t::text FROM {table} t ORDER BY 1")
        for table in ("sessions", "events", "app_states", "user_states", "pg_tables")
    ]


def shift_everything(url: str, *, back: timedelta, first_messages: timedelta) -> None:
    seconds, later = back.total_seconds(), (back - first_messages).total_seconds()
    if url.startswith("postgres"):
        postgres.run(
            url,
            f"UPDATE sessions SET create_time = create_time - interval '{seconds} s'",
            f"UPDATE events SET timestamp = timestamp - interval '{later} s'",
        )
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        for table, column, by in (
            ("sessions", "create_time", seconds),
            ("events", "timestamp", later),
        ):
            connection.execute(
                f"UPDATE {table} SET {column} = CASE typeof({column}) WHEN 'text'"
                f" THEN strftime('%Y-%m-%d %H:%M:%f', {column}, '-{by} seconds') || '000'"
                f" ELSE {column} - {by} END"
            )


_filled: dict[str, Path] = {}


@pytest.fixture(params=["sqlite", "postgres", "adk-web"])
async def stock_database_url(request, tmp_path, tmp_path_factory):
    """The URL of a database that stock ADK has filled."""
    if request.param == "postgres":
        if "postgres" not in _filled:
            postgres.run(postgres.server().format("postgres"), "CREATE DATABASE stocked")
            url = postgres.server().format("stocked").replace("://", "+asyncpg://", 1)
            async with DatabaseSessionService(url) as service:
                await fill(service)
            _filled["postgres"] = Path("stocked")
        with blank("stocked") as url:
            yield url
        return
    if request.param not in _filled:
        folder = tmp_path_factory.mktemp(request.param)
        with place_of(request.param, folder) as (url, opened):
            service = opened()
            await fill(service)
            await service.close()
        _filled[request.param] = Path(url.removeprefix("sqlite:///"))
    file = tmp_path / _filled[request.param].name
    shutil.copy(_filled[request.param], file)
    yield f"sqlite:///{file}"
