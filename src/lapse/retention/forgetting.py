"""Forgetting what a memory service remembers of purged sessions, after their purge is committed.

The transaction of a purge writes what is to be forgotten into the store's outbox, which keeps it
until it is forgotten. So nothing is forgotten of a session that stays, and what is to be forgotten
of one that is gone is forgotten at least once, whatever becomes of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from lapse.core.background import Background
from lapse.core.keys import SessionKey
from lapse.retention.hooks import HookCalls, Outcome
from lapse.retention.memory_outbox import MemoryOutbox, OwedMemory
from lapse.store.database import Database

NAME: Final = "forget_memory"
"""Calls are counted by this name, beside those of hooks."""

AT_ONCE: Final = 16
PAUSE: Final = timedelta(seconds=30)
"""The pause between two looks into the outbox; a purge in the same process wakes it at once."""

WITHIN: Final = timedelta(minutes=10)
"""How long the events of an entry may take; the service has a time-out for each."""

LEASE: Final = WITHIN + timedelta(minutes=1)

FIRST_PAUSE: Final = timedelta(seconds=30)
LONGEST_PAUSE: Final = timedelta(hours=6)
"""How long an entry is put off that fails; each pause is twice as long as the one before."""

MOST_ATTEMPTS: Final = 200
"""After so many attempts, in about seven weeks, an entry is given up: the outbox must not grow for
ever."""

Forget = Callable[[SessionKey, Sequence[str]], Awaitable[object]]


class Forgetting:
    """Has a memory service forget what the outbox of a store names.

    Args:
        database: the store.
        forget: deletes what is remembered of some events of a session; it may be asked again for
            what it has deleted.
        calls: calls and counts it.
    """

    def __init__(self, database: Database, forget: Forget, calls: HookCalls) -> None:
        self._outbox = MemoryOutbox(database)
        self._forget = forget
        self._calls = calls
        self._work = Background("forgetting memory", self.step, timeout=LEASE, within=self._calling)

    def running(self) -> Background:
        """Return the work that forgets from its start to its stop."""
        return self._work

    def wake(self) -> None:
        """Look into the outbox soon, because something was written into it."""
        self._work.wake()

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[None]:
        self._calls.begin()
        try:
            yield
        finally:
            await self._calls.leave()

    async def step(self) -> timedelta:
        """Forget a few entries, each for itself, and return how long to wait for the next.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        taken = await self._outbox.take_memory(AT_ONCE, lease=LEASE)
        await asyncio.gather(*(self._settle(owed) for owed in taken))
        return timedelta(0) if len(taken) == AT_ONCE else PAUSE

    async def _settle(self, owed: OwedMemory) -> None:
        left = list(owed.event_ids)
        do = partial(self._forget_all, owed.key, left)
        if await self._calls.call(NAME, owed.key, do, WITHIN):
            await self._outbox.settle_memory(owed)
        elif owed.attempts >= MOST_ATTEMPTS:
            why = f"it is given up after {owed.attempts} attempts, with {len(left)} events left"
            self._calls.count(NAME, Outcome.DROPPED, owed.key, why)
            await self._outbox.settle_memory(owed)
        else:
            # The one that failed comes last, so that it holds up no other.
            again = [*left[1:], *left[:1]]
            await self._outbox.postpone_memory(owed, again, pause_after(owed.attempts))

    async def _forget_all(self, key: SessionKey, left: list[str]) -> None:
        """Forget events one after the other; `left` has those that are not forgotten."""
        while left:
            await self._forget(key, left[:1])
            del left[0]


def pause_after(attempts: int) -> timedelta:
    """Return how long an entry is put off that has failed so often."""
    return min(FIRST_PAUSE * (1 << min(attempts - 1, 20)), LONGEST_PAUSE)
