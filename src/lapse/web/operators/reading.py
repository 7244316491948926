"""What pages and API read of a store, and how often."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import TracebackType
from typing import Final, Self

from lapse.errors import StoreUnavailableError
from lapse.lifecycle import Status
from lapse.operating import Overview
from lapse.sessions import LapseSessionService
from lapse.ttl import Scope
from lapse.ttl.curve import Curve
from lapse.ttl.deciding import WINDOW_DAYS
from lapse.ttl.observed import cohorts
from lapse.ttl.rounds import ttl_of
from lapse.web.operators.charts import CurveChart, curve_chart
from lapse.web.operators.views import SHOWN, Reading, tallied

TIMEOUT: Final = timedelta(seconds=5)
"""A page says that the store does not answer rather than wait for longer."""

_RETRY: Final = timedelta(minutes=10)
"""How soon curves are read again that could not be read. Whole days make them: once a day is
enough, for reading costs what a month observed."""

_MOST_CURVES: Final = 3
_READING: Final = timedelta(minutes=1)
_PATIENCE: Final = timedelta(milliseconds=250)
"""How long a page waits for curves that are being read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Curves:
    """The charts, and whether newer ones are on their way."""

    charts: Sequence[CurveChart]
    is_being_read: bool


class Reader:
    """Reads what operators are shown."""

    def __init__(self, service: LapseSessionService, *, sweeps: bool) -> None:
        self._service = service
        self._store = service.store
        self._sweeps = sweeps
        self._curves: dict[str, Curve] = {}
        self._task: asyncio.Task[None] | None = None
        self._curves_of: date | None = None
        self._next_try = -math.inf

    async def reading(self) -> Reading:
        """Return how things are.

        Raises:
            StoreUnavailableError: the store does not answer.
            TimeoutError: likewise.
        """
        began = time.perf_counter()
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            overview = await self._store.overview(since=SHOWN)
        policy = self._service.policy
        return Reading(
            overview=overview,
            took=timedelta(seconds=time.perf_counter() - began),
            rules=self._store.rules,
            mode=policy.mode,
            targets=policy.targets,
            standing=policy.standing,
            sweeps=self._sweeps,
        )

    async def curves(self, now: datetime) -> Curves:
        """Return the curves of the largest apps that have any, each with its TTL in force.

        Nobody waits for long: those of before are shown while newer ones are read.
        """
        if self._curves_of != now.date() and time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + _RETRY.total_seconds()
            self._task = asyncio.create_task(self._read_curves(now), name="lapse-curves")
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_PATIENCE.total_seconds())
        policy = self._service.policy
        charts = [
            curve_chart(app, curve, ttl_of(Scope(app), policy.standing, policy.default))
            for app, curve in self._curves.items()
        ]
        return Curves(charts, is_being_read=self._task is not None and not self._task.done())

    async def __aenter__(self) -> Self:
        """Begin; what is read is read when it is asked for."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what is being read."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _read_curves(self, now: datetime) -> None:
        horizon = self._store.rules.horizon
        since = now.date() - timedelta(days=WINDOW_DAYS + 1) - horizon
        try:
            async with asyncio.timeout(_READING.total_seconds()):
                counts = await self._store.observed(since=since)
        except (StoreUnavailableError, TimeoutError) as error:
            _log.warning("the curves could not be read: %s", error or type(error).__name__)
            return
        days = cohorts(counts, frozenset())

        def heard(scope: Scope) -> int:
            return sum(sum(day.heard.counts) for day in days[scope])

        largest = sorted(days, key=heard, reverse=True)[:_MOST_CURVES]
        curves = {scope.app_name: Curve.of(days[scope], horizon, now) for scope in largest}
        self._curves = {
            app: curve for app, curve in curves.items() if curve and len(curve.silent) > 1
        }
        self._curves_of = now.date()


def by_status(overview: Overview) -> dict[Status | None, int]:
    """Return how many sessions have each status; None has those of any."""
    shown = (None, Status.WAITING, Status.USED, Status.EXPIRED)
    return {status: tallied(overview.tallies, status) for status in shown}
