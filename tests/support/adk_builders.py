"""Sessions and events as these tests need them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.genai import types

from lapse import LapseSessionService
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status

APP = "concierge"
USER = "ada"


def message_event(text: str = "hello", *, author: str = "user", **fields: Any) -> Event:
    """Return a message; the keyword `delta` is the change of state it carries."""
    delta = fields.pop("delta", {})
    role = "user" if author == "user" else "model"
    return Event(
        author=author,
        invocation_id=fields.pop("invocation_id", "e-1"),
        content=types.Content(role=role, parts=[types.Part(text=text)]),
        actions=EventActions(state_delta=delta),
        **fields,
    )


def state_event(delta: dict[str, Any] | None = None, **fields: Any) -> Event:
    """Return an event that changes state and says nothing."""
    return Event(
        author="user",
        invocation_id=fields.pop("invocation_id", "p-1"),
        actions=EventActions(state_delta=delta or {}),
        **fields,
    )


async def create_session(service: Any, **arguments: Any) -> Any:
    return await service.create_session(**{"app_name": APP, "user_id": USER} | arguments)


async def get_session(service: Any, session_id: str, **arguments: Any) -> Any:
    arguments = {"app_name": APP, "user_id": USER, "session_id": session_id} | arguments
    return await service.get_session(**arguments)


async def delete_session(service: Any, session_id: str) -> None:
    await service.delete_session(app_name=APP, user_id=USER, session_id=session_id)


async def status_of(service: LapseSessionService, session_id: str) -> Status:
    return (await service.lifecycle(SessionKey(APP, USER, session_id))).status


def texts(session: Any) -> list[str]:
    return [event.content.parts[0].text for event in session.events if event.content]


async def eventually(condition, *, within: float = 20.0) -> None:
    """Return once the awaitable `condition()` gives true; fail when it never does."""
    end = time.monotonic() + within
    while not await condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.005)
