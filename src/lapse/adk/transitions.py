"""Runs transitions to their end, and locks that make appends to one session run one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.store.records import Result
from lapse.telemetry.tracing import span

T = TypeVar("T")


class Transitions:
    """Runs each transition of a store in a task of its own and publishes its changes."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._running: set[asyncio.Task[Any]] = set()

    async def run(
        self,
        name: str,
        key: SessionKey,
        transition: Coroutine[Any, Any, Result[T]],
    ) -> Result[T]:
        """Run a transition, publish its changes and return its result.

        If the caller is cancelled, the transition still runs to its end.
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

    async def finish(self, *, within: timedelta) -> None:
        """Wait until every transition that was begun has succeeded or failed, or time is up."""
        if self._running:
            await asyncio.wait(self._running, timeout=within.total_seconds())


class AppendLocks:
    """One lock for each session; a lock exists only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[int, SessionKey], asyncio.Lock] = (
            WeakValueDictionary()
        )

    def of(self, key: SessionKey) -> asyncio.Lock:
        """Return the lock of a session's appends in the present event loop."""
        return self._locks.setdefault((id(asyncio.get_running_loop()), key), asyncio.Lock())
