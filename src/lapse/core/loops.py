"""What belongs to one event loop, kept in an object that lives through several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from lapse.core.keys import SessionKey

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One thing for each event loop that asks for it.

    A lock, an event or a task belongs to the event loop on which it was first awaited, and fails on
    every other. The things of closed loops are dropped when the next loop asks.

    Args:
        make: makes the thing of one loop.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._things: dict[asyncio.AbstractEventLoop, T] = {}

    def here(self) -> T:
        """Return the thing of the running event loop."""
        loop = asyncio.get_running_loop()
        found = self._things.get(loop)
        if found is None:
            for other in list(self._things):
                if other.is_closed():
                    self._things.pop(other, None)
            found = self._things[loop] = self._make()
        return found


class SessionLocks:
    """One lock for each session; a lock exists only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: PerLoop[WeakValueDictionary[SessionKey, asyncio.Lock]] = PerLoop(
            WeakValueDictionary
        )

    def of(self, key: SessionKey) -> asyncio.Lock:
        """Return the lock of a session in the running event loop."""
        return self._locks.here().setdefault(key, asyncio.Lock())


def may_end_with_its_loop(task: asyncio.Task[T]) -> asyncio.Task[T]:
    """Return a task that nobody has to end before its loop is closed.

    asyncio would report such a task as an error for each loop that is closed without an end of its
    tasks.
    """
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
    return task
