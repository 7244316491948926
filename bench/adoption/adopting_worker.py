"""One side of the adoption benchmark: `adopt` takes sessions, `load` appends to used ones."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from typing import Any

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai.types import Content, Part

from bench.support.children import Answer, Request, answer_requests
from lapse.adk.service import LapseSessionService
from lapse.adoption.adopt import BATCH, Throttle
from lapse.adoption.store import AdoptionStore, Batch, Selection
from lapse.core.keys import SessionKey
from lapse.store import store_from_url

TTL = timedelta(minutes=30)
_state: dict[str, Any] = {"after": None}


async def adopt(request: Request) -> Answer:
    """Adopt for some seconds, going on where the last call ended."""
    throttle, store = Throttle(request["rate"]), _state["store"]
    began, taken = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < request["seconds"]:
        batch = Batch("bench", Selection(), TTL, _state["after"], BATCH)
        part = await AdoptionStore(store).adopt(batch)
        taken, _state["after"] = taken + len(part.changes), part.value.last
        if part.value.last is None:
            elapsed = time.perf_counter() - began
            break
        await throttle.spent(len(part.changes))
    return {"rate": taken / elapsed, "taken": taken, "ended": _state["after"] is None}


async def load(request: Request) -> Answer:
    """Append as fast as the answers come."""
    service: LapseSessionService = _state["service"]
    until = time.perf_counter() + request["seconds"]
    took: list[float] = []

    async def call(session: Any) -> None:
        while (began := time.perf_counter()) < until:
            parts = [Part(text="Is the table by the window free?")]
            event = Event(author="user", content=Content(role="user", parts=parts))
            await service.append_event(session, event)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(call(session) for session in _state["sessions"][: request["callers"]]))
    took.sort()
    return {"rate": len(took) / request["seconds"], "p99": took[int(len(took) * 0.99)] * 1000}


async def handle(request: Request) -> Answer:
    match request["do"]:
        case "open":
            store = _state["store"] = store_from_url(request["url"])
            await store.open()
            if sys.argv[1] == "load":
                service = _state["service"] = LapseSessionService(store)
                _state["sessions"] = []
                for number in range(8):
                    session = await service.create_session(app_name="load", user_id=f"u{number}")
                    parts = [Part(text="hello")]
                    event = Event(author="user", content=Content(role="user", parts=parts))
                    await service.append_event(session, event)
                    key = SessionKey(session.app_name, session.user_id, session.id)
                    config = GetSessionConfig(num_recent_events=0)
                    _state["sessions"].append(
                        await service.get_session(**key._asdict(), config=config)
                    )
            return {}
        case "adopt":
            return await adopt(request)
        case _:
            return await load(request)


if __name__ == "__main__":
    answer_requests(handle)
