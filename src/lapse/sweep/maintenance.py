"""Maintenance: the operations that keep a store small and its reads cheap."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Final

from lapse.core.background import Background, Work
from lapse.core.errors import LapseError

EVERY: Final = timedelta(minutes=5)

_TIMEOUT: Final = timedelta(minutes=1)

_log = logging.getLogger(__name__)


class Maintenance(Work):
    """Runs the maintenance operations of a store's parts, one after the other, every five minutes.

    It works beside the sweeper, so that no deadline waits for it. An operation that fails, or
    takes longer than a minute, does not stop the others; one line is logged when it begins to fail
    and one when it works again.

    Args:
        operations: each may run at any time, in any number of processes at once.
    """

    def __init__(self, operations: Iterable[Callable[[], Awaitable[object]]]) -> None:
        self._operations = list(operations)
        self._failing = set[int]()
        within = _TIMEOUT * (len(self._operations) + 1)
        self._work = Background("maintenance", self._step, timeout=within)

    async def start(self) -> None:
        """Start, at once with the first round."""
        await self._work.start()

    async def stop(self) -> None:
        """Stop, and return once stopped."""
        await self._work.stop()

    async def run(self) -> None:
        """Run each operation once; log their failures and raise none."""
        for number, operation in enumerate(self._operations):
            name = getattr(operation, "__qualname__", repr(operation))
            try:
                async with asyncio.timeout(_TIMEOUT.total_seconds()):
                    await operation()
            except Exception as error:  # noqa: BLE001 - the other operations go on
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
