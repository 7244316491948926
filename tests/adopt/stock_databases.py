"""Databases as stock ADK leaves them."""

from contextlib import contextmanager
from pathlib import Path

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai.types import Content, Part

from postgres import blank

OWNER = {"app_name": "shop", "user_id": "ada"}


def words(text="hi", **more):
    return Event(author="user", content=Content(role="user", parts=[Part(text=text)]), **more)


def patch(**state):
    return Event(author="user", invocation_id="p-1", actions=EventActions(state_delta=state))


async def fill(service: BaseSessionService) -> None:
    """Make 4 empty sessions of 2 apps, 3 used ones, and one of every other kind."""
    for name in ("e1", "e2", "e3"):
        await service.create_session(**OWNER, session_id=name)
    await service.create_session(app_name="zoo", user_id="bob", session_id="e4")
    for name in ("u1", "u2", "u3"):
        used = await service.create_session(**OWNER, session_id=name, state={"user:n": 1})
        await service.append_event(used, patch(f=1e22, g=0.1, é="ü"))
        await service.append_event(used, words(f"hello {name}"))
        await service.append_event(used, words("and more"))
    await service.create_session(**OWNER, session_id="s1", state={"a": [1, None, {"b": 1.5}]})
    patched = await service.create_session(**OWNER, session_id="p1")
    await service.append_event(patched, patch(theme="dark"))
    asked = await service.create_session(**OWNER, session_id="w1")
    confirmation = {"call-1": ToolConfirmation(hint="sure?")}
    actions = EventActions(requested_tool_confirmations=confirmation)
    await service.append_event(asked, Event(author="bot", actions=actions))
    await service.create_session(**OWNER, session_id="adk-eval-session-1")


COUNTS = {
    "empty": 4, "used": 3, "with_state": 1, "with_events": 1, "awaiting": 1, "evaluation": 1,
}  # fmt: skip


@contextmanager
def place_of(kind: str, folder: Path):
    """Yield the URL of an empty place, and how ADK's own service opens it."""
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
