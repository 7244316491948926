"""How what is done to sessions is run: to its end, and appends to one session in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.store.records import Result
from lapse.telemetry.tracing import span

T = TypeVar("T")


class Transitions:
    """Runs transitions of a store, each in a task of its own, and publishes their changes."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._running: set[asyncio.Task[Any]] = set()

    async def run(
        self,
        name: str,
        key: SessionKey,
        transition: Coroutine[Any, Any, Result[T]],
    ) -> Result[T]:
        """Return what a transition returns.

        A caller that is cancelled leaves it running.
        """

        async def run() -> Result[T]:
            with span(name, key) as traced:
                result = await transition
                traced.note_changes(result.changes)
            self._feed.publish(result.changes)
            return result

        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Return once all that was begun has ended, well or not."""
        await asyncio.gather(*self._running, return_exceptions=True)


class Turns:
    """Locks that are there as long as somebody holds one or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[int, SessionKey], asyncio.Lock] = (
            WeakValueDictionary()
        )

    def of(self, key: SessionKey) -> asyncio.Lock:
        """Return the lock that a session's appends in this loop share."""
        return self._locks.setdefault((id(asyncio.get_running_loop()), key), asyncio.Lock())
