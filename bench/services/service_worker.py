"""Measures one peer's session service; one process for each peer."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import uuid
from contextlib import AsyncExitStack

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.session import Session
from google.genai import types

from bench.support.children import Answer, Request, answer_requests, freeze
from bench.support.figures import Operation, closed_loop
from bench.support.peers import PEERS, Peer

APP = "bench"
TEXT = "Could you book a table for four on Friday evening, near the window if there is one? " * 2
LONG_SESSIONS, LONG = 4, 50
LISTED_USERS, LISTED = 2, 20


class Workload:
    """The operations, and the sessions that they are done to, on one fresh storage."""

    def __init__(self, service: BaseSessionService) -> None:
        self._service = service
        self._users = 0
        self._fresh: list[Session] = []
        self._spoken: list[Session] = []
        self._held: list[list[Session]] = []
        self._empty: list[Session] = []
        self._long: list[Session] = []

    async def prepare(self) -> None:
        """Make the sessions that reads need."""
        self._empty = [await self._create(f"empty-{n}") for n in range(32)]
        self._long = [await self._create(f"long-{n}") for n in range(LONG_SESSIONS)]
        for session in self._long:
            for turn in range(LONG):
                await self._service.append_event(session, spoken(turn))
        for user in range(LISTED_USERS):
            # Half of them used: a list of empty sessions alone is what nobody has.
            for n in range(LISTED):
                session = await self._create(f"listed-{user}")
                if n % 2:
                    await self._service.append_event(session, message())
        # Connections are made when they are first needed together.
        await asyncio.gather(*(self._get_empty(n, 0) for n in range(len(self._empty))))

    def operation(self, name: str, callers: int) -> Operation:
        """Return an operation by its name, ready for a number of callers."""
        if name == "append_first":
            self._held = [self._fresh[n::callers] for n in range(callers)]
            self._fresh, self._spoken = [], []
        if name == "append_later":
            self._held = [self._spoken[n::callers] for n in range(callers)]
        operation: Operation = getattr(self, f"_{name}")
        return operation

    async def _create(self, user: str) -> Session:
        return await self._service.create_session(app_name=APP, user_id=user)

    async def _create_session(self, _caller: int, _turn: int) -> bool:
        self._users += 1
        self._fresh.append(await self._create(f"user-{self._users}"))
        return True

    async def _append_first(self, caller: int, turn: int) -> bool:
        if turn >= len(self._held[caller]):
            return False
        session = self._held[caller][turn]
        await self._service.append_event(session, message())
        self._spoken.append(session)
        return True

    async def _append_later(self, caller: int, turn: int) -> bool:
        sessions = self._held[caller]
        if not sessions:
            return False
        await self._service.append_event(sessions[turn % len(sessions)], message())
        return True

    async def _get_empty(self, caller: int, turn: int) -> bool:
        return await self._get(self._empty[(caller + turn) % len(self._empty)], 0)

    async def _get_50(self, caller: int, turn: int) -> bool:
        return await self._get(self._long[(caller + turn) % len(self._long)], LONG)

    async def _get(self, wanted: Session, events: int) -> bool:
        session = await self._service.get_session(
            app_name=APP, user_id=wanted.user_id, session_id=wanted.id
        )
        assert session is not None
        assert len(session.events) == events
        return True

    async def _list_20(self, caller: int, turn: int) -> bool:
        user = f"listed-{(caller + turn) % LISTED_USERS}"
        listed = await self._service.list_sessions(app_name=APP, user_id=user)
        assert len(listed.sessions) == LISTED
        return True


class Worker:
    """Answers the requests open, measure and close for one peer."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stack = AsyncExitStack()
        self._workload: Workload | None = None

    async def handle(self, request: Request) -> Answer:
        match request["do"]:
            case "open":
                assert self._peer.open is not None
                opened = await self._stack.enter_async_context(self._peer.open(request["url"]))
                freeze()
                self._workload = Workload(opened.service)
                await self._workload.prepare()
                return {"durability": opened.durability}
            case "measure":
                assert self._workload is not None
                callers = request["callers"]
                operation = self._workload.operation(request["operation"], callers)
                gc.collect()  # what an earlier operation left is not this one's cost
                sample = await closed_loop(operation, callers=callers, seconds=request["seconds"])
                return sample.as_json()
            case _:
                await self._stack.aclose()
                self._stack, self._workload = AsyncExitStack(), None
                return {}


_MESSAGE = Event(
    author="user",
    invocation_id="e-0123456789",
    content=types.Content(role="user", parts=[types.Part(text=TEXT)]),
)


def message() -> Event:
    """Return a new message of the user; a copy, for making one costs as much as storing it."""
    return _MESSAGE.model_copy(update={"id": str(uuid.uuid4()), "timestamp": time.time()})


def spoken(turn: int) -> Event:
    """Return an event of a conversation: question, call of a tool, its result, answer."""
    match turn % 4:
        case 0:
            return message()
        case 1:
            arguments = {"guests": 4, "day": "Friday", "wishes": ["window", "quiet"]}
            part = types.Part.from_function_call(name="reserve_table", args=arguments)
        case 2:
            result = {"reservation": turn, "status": "reserved"}
            part = types.Part.from_function_response(name="reserve_table", response=result)
        case _:
            part = types.Part(text=TEXT)
    return Event(
        author="concierge",
        invocation_id="e-0123456789",
        content=types.Content(role="model", parts=[part]),
        actions=EventActions(state_delta={"reservations": turn} if turn % 4 == 2 else {}),
        usage_metadata=types.GenerateContentResponseUsageMetadata(
            prompt_token_count=17, candidates_token_count=42, total_token_count=59
        ),
    )


if __name__ == "__main__":
    store, name = sys.argv[1:]
    answer_requests(Worker({peer.name: peer for peer in PEERS[store]}[name]).handle)
