"""Work that a server does beside its requests, a step at a time, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from lapse.core.errors import LapseError

_FIRST_RETRY: Final = timedelta(seconds=1)
_LONGEST_RETRY: Final = timedelta(minutes=1)
_STOP_TIMEOUT: Final = timedelta(seconds=1)

_log = logging.getLogger(__name__)


class Background:
    """Takes steps inside its context; each says how long there is nothing to do after it.

    A step that fails is taken again after a growing, jittered pause; one line is logged when
    failing begins and one when it ends.

    Args:
        name: what it is called in the log.
        step: one bounded piece of work.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[timedelta]]) -> None:
        self._name = name
        self._step = step
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Begin."""
        self._stopping.clear()
        self._task = asyncio.create_task(self._run(), name=f"lapse-{self._name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the step in hand, unless it is kept waiting, and end."""
        assert self._task is not None
        self._stopping.set()
        _, pending = await asyncio.wait([self._task], timeout=_STOP_TIMEOUT.total_seconds())
        for task in pending:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                pause = await self._step()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next step may work
                failures += 1
                pause = min(_FIRST_RETRY * (1 << min(failures - 1, 10)), _LONGEST_RETRY)
                pause *= 0.5 + random.random() / 2
                if failures == 1:
                    known = isinstance(error, LapseError | OSError)
                    _log.error(
                        "%s cannot work and will keep trying: %s",
                        self._name,
                        error or type(error).__name__,
                        exc_info=None if known else error,
                    )
            else:
                if failures:
                    _log.warning("%s works again, after %d failures", self._name, failures)
                failures = 0
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause.total_seconds())
