"""Runs transitions to their end, and locks that make appends to one session run one by one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from lapse.core.errors import LapseError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.loops import PerLoop
from lapse.store.records import Result
from lapse.telemetry.tracing import span

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Transitions:
    """Runs each transition of a store in a task of its own and publishes its changes."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._running: PerLoop[set[asyncio.Task[Any]]] = PerLoop(set)

    async def run(
        self,
        name: str,
        key: SessionKey,
        transition: Coroutine[Any, Any, Result[T]],
    ) -> Result[T]:
        """Run a transition, publish its changes and return its result.

        If the caller is cancelled, the transition still runs to its end.
        """
        return await asyncio.shield(self._begun(self._carried_out(name, key, transition)))

    def begin(
        self,
        name: str,
        key: SessionKey,
        transition: Coroutine[Any, Any, Result[Any]],
        *,
        unless: tuple[type[LapseError], ...],
    ) -> None:
        """Run a transition that nobody waits for, and publish its changes.

        An error of `unless` says that there was nothing to do; any other is logged.
        """

        async def run() -> None:
            try:
                await self._carried_out(name, key, transition)
            except unless:
                pass
            except LapseError as error:
                facts = {"app": key.app_name, "session": key.short}
                _log.warning("%s of a session failed: %s", name, error, extra=facts)

        self._begun(run())

    async def _carried_out(
        self, name: str, key: SessionKey, transition: Coroutine[Any, Any, Result[T]]
    ) -> Result[T]:
        with span(name, key) as traced:
            result = await transition
            traced.note_changes(result.changes)
        self._feed.publish(result.changes)
        return result

    def _begun(self, running: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(running)
        under_way = self._running.here()
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return task

    async def finish(self, *, within: timedelta) -> None:
        """Wait until every transition of this event loop has succeeded or failed, or time is up."""
        running = self._running.here()
        if running:
            await asyncio.wait(running, timeout=within.total_seconds())


class AppendLocks:
    """One lock for each session; a lock exists only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: PerLoop[WeakValueDictionary[SessionKey, asyncio.Lock]] = PerLoop(
            WeakValueDictionary
        )

    def of(self, key: SessionKey) -> asyncio.Lock:
        """Return the lock of a session's appends in the present event loop."""
        return self._locks.here().setdefault(key, asyncio.Lock())
