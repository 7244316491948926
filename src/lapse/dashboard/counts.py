"""Counts that read every session: they are taken beside the pages, which wait a moment only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from lapse.core.clock import utc_now
from lapse.core.errors import LapseError
from lapse.core.loops import PerLoop

T = TypeVar("T")

_TIMEOUT: Final = timedelta(minutes=1)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counted(Generic[T]):
    """A count, and when it was taken. `of` names what was counted."""

    found: T
    at: datetime
    of: Hashable


class Count(Generic[T]):
    """Keeps the latest count, and takes a newer one if somebody looks, once at a time.

    Args:
        what: the subject of the log line `… not counted`, if a count fails.
        every: how old a count becomes before it is taken again.
        patience: how long a page waits for a first count; a small store is counted within it.
    """

    def __init__(self, what: str, *, every: timedelta, patience: timedelta) -> None:
        self._what = what
        self._every = every.total_seconds()
        self._patience = patience.total_seconds()
        self._counting: PerLoop[list[asyncio.Task[None]]] = PerLoop(list)
        self._latest: Counted[T] | None = None
        self._begun: tuple[Hashable, float] | None = None

    async def latest(
        self, count: Callable[[], Awaitable[T]], of: Hashable = None, *, anew: bool = False
    ) -> Counted[T] | None:
        """Return the latest count of `of`; None while the first is not done, or has failed.

        With `anew` it is taken again even if there is one, and the page waits for it.
        """
        counting, now = self._counting.here(), time.monotonic()
        begun_of, begun_at = self._begun or (None, -self._every)
        is_old = anew or begun_of != of or now - begun_at >= self._every
        if is_old and (not counting or counting[0].done()):
            self._begun = of, now
            counting[:] = [asyncio.create_task(self._take(count, of), name="lapse-count")]
        if counting and (anew or self._known(of) is None):
            await asyncio.wait(counting, timeout=self._patience)
        return self._known(of)

    def _known(self, of: Hashable) -> Counted[T] | None:
        latest = self._latest
        return latest if latest is not None and latest.of == of else None

    async def _take(self, count: Callable[[], Awaitable[T]], of: Hashable) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT.total_seconds()):
                self._latest = Counted(await count(), utc_now(), of)
        except (LapseError, TimeoutError) as error:
            told = error or f"it took more than {_TIMEOUT.total_seconds():.0f} s"
            _log.warning("%s not counted: %s", self._what, told)
