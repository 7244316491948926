"""The requests that wait, session by session, until no run is in flight in their session."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from lapse.core.keys import SessionKey
from lapse.core.loops import SessionLocks


class QueueFullError(Exception):
    """As many requests wait as may, or the wait was too long."""


class Queues:
    """One queue for each session; a queue exists only while somebody waits.

    Args:
        most: the most requests that wait in one queue.
        patience: how long one may wait.
    """

    def __init__(self, most: int, patience: timedelta) -> None:
        self._most = most
        self._patience = patience.total_seconds()
        self._locks = SessionLocks()
        self._waiting: Counter[SessionKey] = Counter()

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncIterator[None]:
        """Wait until the block is the first in the session's queue, and hold that place.

        Raises:
            QueueFullError: the queue is full, or the wait was too long.
        """
        if self._waiting[key] >= self._most:
            raise QueueFullError
        lock = self._locks.of(key)
        self._waiting[key] += 1
        try:
            try:
                await asyncio.wait_for(lock.acquire(), self._patience)
            except TimeoutError:
                raise QueueFullError from None
            try:
                yield
            finally:
                lock.release()
        finally:
            self._waiting[key] -= 1
            self._waiting += Counter()  # removes keys whose count is zero
