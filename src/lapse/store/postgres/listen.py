"""Listening to a channel of PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Final

import asyncpg

from lapse.core.errors import StoreUnavailableError
from lapse.core.loops import may_end_with_its_loop
from lapse.store.postgres.connections import NOT_NOW, Connections

_LONGEST_PAUSE: Final = timedelta(seconds=30)

_log = logging.getLogger(__name__)


class Listener:
    """Calls `hear` with each text that is sent to a channel, while its context is entered.

    It has a connection of its own, and makes a new one if that breaks.
    """

    def __init__(self, connections: Connections, channel: str, hear: Callable[[str], None]) -> None:
        self._connections = connections
        self._channel = channel
        self._hear = hear
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        listening = asyncio.create_task(self._listen(), name="lapse-listener")
        self._task = may_end_with_its_loop(listening)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A generator's exit comes when its event loop is closed already: nothing can be awaited.
        if self._task is not None and kind is not GeneratorExit:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _listen(self) -> None:
        pause = timedelta(milliseconds=500)
        while True:
            try:
                await self._listen_once()
            except (*NOT_NOW, asyncpg.PostgresError, StoreUnavailableError) as error:
                # Nothing depends on a text: its hearers read the store every few seconds anyway.
                _log.debug("not listening on %s: %s", self._channel, error)
            await asyncio.sleep(pause.total_seconds() * (0.5 + random.random()))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _listen_once(self) -> None:
        """Listen until the connection ends."""
        connection = await self._connections.connect()
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        try:
            await connection.add_listener(self._channel, self._receive)
            await ended.wait()
        finally:
            with suppress(RuntimeError):  # the loop was closed in the middle
                connection.terminate()

    def _receive(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._hear(str(payload))
