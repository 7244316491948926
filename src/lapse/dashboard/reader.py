"""Reads from the store what the pages and the API show."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from lapse.adk.service import LapseSessionService
from lapse.core.lifecycle import Status
from lapse.dashboard.charts import CurveChart, curve_chart
from lapse.dashboard.verdicts import SHOWN, Reading, tallied
from lapse.overview.store import Overview, OverviewStore
from lapse.ttl import Scope
from lapse.ttl.curve import Curve
from lapse.ttl.rounds import ttl_of

TIMEOUT: Final = timedelta(seconds=5)
"""A page that has waited this long says that the store does not answer."""

_MOST_CURVES: Final = 3


class Reader:
    """Reads the overview of a store and the curves of the TTL policy."""

    def __init__(self, service: LapseSessionService, *, sweeps: bool) -> None:
        self._service = service
        self._store = service.store
        self._sweeps = sweeps

    async def reading(self) -> Reading:
        """Return the present state of the store and of the TTL policy.

        Raises:
            StoreUnavailableError: the store does not answer.
            TimeoutError: the store did not answer within TIMEOUT.
        """
        began = time.perf_counter()
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            overview = await OverviewStore(self._store).overview(since=SHOWN)
        policy = self._service.policy
        return Reading(
            overview=overview,
            took=timedelta(seconds=time.perf_counter() - began),
            rules=self._store.rules,
            mode=policy.mode,
            targets=policy.targets,
            in_force=policy.in_force,
            sweeps=self._sweeps,
        )

    def curves(self, now: datetime) -> Sequence[CurveChart]:
        """Return the curves of the largest apps that have one, each with its TTL in force.

        They are made from what the TTL policy reads once a day, so this does not read the store.
        """
        policy = self._service.policy
        apps = {scope: days for scope, days in policy.observed.items() if not scope.segment}

        def first_messages(scope: Scope) -> int:
            return sum(sum(day.first_messages.counts) for day in apps[scope])

        charts = []
        for scope in sorted(apps, key=first_messages, reverse=True)[:_MOST_CURVES]:
            curve = Curve.of(apps[scope], self._store.rules.horizon, now)
            if curve is not None and len(curve.silent) > 1:
                ttl = ttl_of(scope, policy.in_force, policy.default)
                charts.append(curve_chart(scope.app_name, curve, ttl))
        return charts


def by_status(overview: Overview) -> dict[Status | None, int]:
    """Return how many sessions have each status; the key None has the total."""
    shown = (None, Status.WAITING, Status.USED, Status.EXPIRED)
    return {status: tallied(overview.tallies, status) for status in shown}
