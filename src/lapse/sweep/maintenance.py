"""Maintenance: what keeps a store small, and reading it cheap, whatever is swept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from lapse.core.background import Background
from lapse.core.errors import LapseError

EVERY: Final = timedelta(minutes=5)

_TIMEOUT: Final = timedelta(minutes=1)

_log = logging.getLogger(__name__)


class Maintenance:
    """Runs the maintenance operations of a store's parts, one after the other, EVERY five minutes.

    It works beside the sweeper, so that no deadline waits for it. An operation that fails, or
    takes longer than a minute, does not stop the others; one line is logged when its failing
    begins and one when it ends.

    `start` and `stop` may be called in any order and any number of times. As a context manager it
    starts and stops.

    Args:
        operations: each may run at any time, in any number of processes at once.
    """

    def __init__(self, operations: Iterable[Callable[[], Awaitable[object]]]) -> None:
        self._operations = list(operations)
        self._failing = set[int]()
        within = _TIMEOUT * (len(self._operations) + 1)
        self._work = Background("maintenance", self._step, timeout=within)

    async def start(self) -> None:
        """Begin, at once with the first round; nothing happens when it has begun."""
        await self._work.start()

    async def stop(self) -> None:
        """Stop and return once stopped; nothing happens when it is not running."""
        await self._work.stop()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    async def run(self) -> None:
        """Run each operation once; none of their failures is raised."""
        for number, operation in enumerate(self._operations):
            name = getattr(operation, "__qualname__", repr(operation))
            try:
                async with asyncio.timeout(_TIMEOUT.total_seconds()):
                    await operation()
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                if number not in self._failing:
                    self._failing.add(number)
                    known = isinstance(error, LapseError | OSError)
                    _log.error(
                        "maintenance failed and will be tried again, %s: %s",
                        name,
                        str(error) or type(error).__name__,
                        exc_info=None if known else error,
                    )
            else:
                if number in self._failing:
                    self._failing.remove(number)
                    _log.warning("maintenance works again, %s", name)

    async def _step(self) -> timedelta:
        await self.run()
        return EVERY
