"""Whether an open store takes writes; `Database.inspect` looks at one that is not open."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Final

from lapse.core.errors import LapseError
from lapse.core.loops import PerLoop
from lapse.store.database import Database
from lapse.store.operation import Asking, Part, only, operation, rows

MOST_COUNTED: Final = 100_000
"""A check counts sessions up to this number."""

_EVERY: Final = timedelta(seconds=1)
_TIMEOUT: Final = timedelta(seconds=2)


class HealthStore(Part):
    """Whether a store takes writes, and reads them."""

    @operation(flushed=False)
    def ping(self) -> Asking[None]:
        """Write a row, as any operation writes its own; a full disk, a lock or a fault fails it.

        There is one such row. A repeat writes it again.
        """
        yield from rows("ping")

    @operation(writes=False)
    def read_ping(self) -> Asking[None]:
        """Read the row that `ping` wrote, and one of the lobby."""
        yield from only("read_ping")


class Probe:
    """Asks a store whether it takes writes, for all who want to know: at most once a second."""

    def __init__(self, database: Database) -> None:
        self._store = HealthStore(database)
        self._asking: PerLoop[list[asyncio.Task[str | None]]] = PerLoop(list)
        self._asked_at = 0.0

    async def fault(self) -> str | None:
        """Return why the store does not take writes; None if it does.

        The answer is at most a second old.
        """
        now = time.monotonic()
        asking = self._asking.here()
        if not asking or (asking[0].done() and now - self._asked_at >= _EVERY.total_seconds()):
            asking[:] = [asyncio.create_task(self._ask(), name="lapse-probe")]
            self._asked_at = now
        return await asyncio.shield(asking[0])

    async def _ask(self) -> str | None:
        try:
            async with asyncio.timeout(_TIMEOUT.total_seconds()):
                await self._store.ping()
                await self._store.read_ping()
        except TimeoutError:
            return f"no answer within {_TIMEOUT.total_seconds():.0f} s"
        except LapseError as error:
            return str(error)
        return None
