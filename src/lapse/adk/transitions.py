"""Runs transitions to their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final, TypeVar

from lapse.core.errors import LapseError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.loops import PerLoop
from lapse.store.records import Result
from lapse.telemetry.tracing import span

T = TypeVar("T")
R = TypeVar("R")

_PARTING: Final = timedelta(seconds=1)
"""How long a caller who is cancelled stays to note what was stored for it."""

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
        carried_out = self._carried_out(name, key, transition)
        if asyncio.current_task() in self._running.here():  # work of `noted`: nobody cancels it
            return await carried_out
        return await asyncio.shield(self._begun(carried_out))

    async def noted(self, work: Coroutine[Any, Any, T], note: Callable[[T], R]) -> R:
        """Do work to its end, pass its result to `note`, and return what `note` returns.

        A cancelled caller is released when `note` has been called, or after a second: it may go on
        to use the object that `note` changes, as ADK's runner does to say that it was cancelled.
        """
        task = self._begun(work)
        try:
            done = await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=_PARTING.total_seconds())
            if task.done() and not task.cancelled() and task.exception() is None:
                note(task.result())
            raise
        return note(done)

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
