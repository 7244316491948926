"""What pages and API read of a store, and how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

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

_CURVES_KEPT: Final = timedelta(minutes=10)
"""Whole days make a curve: it changes once a day, and reading it costs what a month observed."""

_MOST_CURVES: Final = 3


class Reader:
    """Reads what operators are shown."""

    def __init__(self, service: LapseSessionService, *, sweeps: bool) -> None:
        self._service = service
        self._store = service.store
        self._sweeps = sweeps
        self._turn = asyncio.Lock()
        self._curves: dict[str, Curve] = {}
        self._curves_read_at = -float("inf")

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

    async def curves(self, overview: Overview) -> Sequence[CurveChart]:
        """Return the curves of the largest apps that have any, each with its TTL in force."""
        async with self._turn:
            if time.monotonic() - self._curves_read_at > _CURVES_KEPT.total_seconds():
                self._curves = await self._read_curves(overview)
                self._curves_read_at = time.monotonic()
        policy = self._service.policy
        return [
            curve_chart(app, curve, ttl_of(Scope(app), policy.standing, policy.default))
            for app, curve in self._curves.items()
        ]

    async def _read_curves(self, overview: Overview) -> dict[str, Curve]:
        horizon = self._store.rules.horizon
        since = overview.now.date() - timedelta(days=WINDOW_DAYS + 1) - horizon
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            counts = await self._store.observed(since=since)
        days = cohorts(counts, frozenset())

        def heard(scope: Scope) -> int:
            return sum(sum(day.heard.counts) for day in days[scope])

        curves = {
            scope.app_name: curve
            for scope in sorted(days, key=heard, reverse=True)[:_MOST_CURVES]
            if (curve := Curve.of(days[scope], horizon, overview.now)) is not None
        }
        return {app: curve for app, curve in curves.items() if len(curve.silent) > 1}


def by_status(overview: Overview) -> dict[Status | None, int]:
    """Return how many sessions have each status; None has those of any."""
    shown = (None, Status.WAITING, Status.USED, Status.EXPIRED)
    return {status: tallied(overview.tallies, status) for status in shown}
