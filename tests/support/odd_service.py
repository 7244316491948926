"""A session service of ADK's around another one, that fails, hangs, and answers late on purpose."""

import asyncio
from collections import Counter, defaultdict, deque
from enum import StrEnum

from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.in_memory_session_service import InMemorySessionService


class Fault(StrEnum):
    """What becomes of a call: whether it is done, and what its caller hears."""

    AWAY = "it is not done, and the connection breaks"
    LOST = "it is done, and the connection breaks"
    REFUSED = "it is refused"
    LOST_AND_REFUSED = "it is done, and then refused"
    HANGS = "it is not done, and never ends"
    LATE = "it is done when the test says so, after its caller has given up"


class DoublingService(InMemorySessionService):
    """Stores an event once more each time it is appended, as some services do."""

    async def append_event(self, session, event):
        stored = self.sessions[session.app_name][session.user_id][session.id]
        kept, stored.events = stored.events, []
        try:
            return await super().append_event(session, event)
        finally:
            stored.events = kept + stored.events


class OddService(BaseSessionService):
    """Does what the inner service does, except where a test has armed a fault.

    `calls` counts the calls by their names. `around`, if it is set, is awaited with the name of
    each call and what does it. `do_late` does the late calls, in the order that the test wants.
    """

    def __init__(self, inner):
        self.inner = inner
        self.calls = Counter()
        self.around = None
        self._faults = defaultdict(deque)
        self._late = []
        self._heard = asyncio.Event()

    async def called(self, name):
        """Wait until there has been a call of this name."""
        while not self.calls[name]:
            self._heard.clear()
            await self._heard.wait()

    def arm(self, name, *faults):
        """Have the next calls of this name meet these faults; None is no fault."""
        self._faults[name].extend(faults)

    async def do_late(self, *, reverse=False):
        """Do all calls that are late, and wait for their ends."""
        waiting, self._late = self._late, []
        for call in reversed(waiting) if reverse else waiting:
            await asyncio.gather(call(), return_exceptions=True)

    async def _do(self, name, call):
        self.calls[name] += 1
        self._heard.set()
        faults = self._faults[name]
        fault = faults.popleft() if faults else None
        if self.around is not None:
            return await self.around(name, lambda: self._met(fault, call))
        return await self._met(fault, call)

    async def _met(self, fault, call):
        match fault:
            case Fault.AWAY:
                raise ConnectionError("it is away")
            case Fault.REFUSED:
                raise ValueError("never")
            case Fault.LOST:
                await call()
                raise ConnectionError("its answer was lost")
            case Fault.LOST_AND_REFUSED:
                await call()
                raise ValueError("never again")
            case Fault.HANGS:
                await asyncio.Event().wait()
            case Fault.LATE:
                self._late.append(call)
                await asyncio.Event().wait()
        return await call()

    async def create_session(self, **asked):
        return await self._do("create", lambda: self.inner.create_session(**asked))

    async def get_session(self, **asked):
        return await self._do("get", lambda: self.inner.get_session(**asked))

    async def list_sessions(self, **asked):
        return await self._do("list", lambda: self.inner.list_sessions(**asked))

    async def delete_session(self, **asked):
        return await self._do("delete", lambda: self.inner.delete_session(**asked))

    async def append_event(self, session, event):
        return await self._do("append", lambda: self.inner.append_event(session, event))

    async def get_user_state(self, **asked):
        return await self._do("user_state", lambda: self.inner.get_user_state(**asked))
