"""Reads from the store what the pages and the API show."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from lapse.adk.service import LapseSessionService
from lapse.core.lifecycle import Status
from lapse.dashboard.charts import CurveChart, curve_chart, early_chart
from lapse.dashboard.counts import Count, Counted
from lapse.dashboard.verdicts import SHOWN, Reading, tallied
from lapse.overview.store import Overview, OverviewStore
from lapse.retention.state import read_state
from lapse.ttl import Scope
from lapse.ttl.curve import Curve
from lapse.ttl.rounds import ttl_of
from lapse.ttl.store import TtlStore
from lapse.webhooks.store import WebhookStore

TIMEOUT: Final = timedelta(seconds=5)
"""A page that has waited this long says that the store does not answer."""

_MOST_CURVES: Final = 3

_EARLY_EVERY: Final = timedelta(minutes=1)
_EARLY_MESSAGES: Final = 200
_FEW_APPS: Final = 50

_UNRECORDED_EVERY: Final = timedelta(minutes=5)
_PATIENCE: Final = timedelta(milliseconds=100)


class Reader:
    """Reads the overview of a store and the curves of the TTL policy."""

    def __init__(
        self,
        service: LapseSessionService,
        *,
        sweeps: bool,
        has_webhook: bool = False,
        retention_file: Path | None = None,
    ) -> None:
        self._service = service
        self._store = service.store
        self._sweeps = sweeps
        self._has_webhook = has_webhook
        self._retention_file = retention_file if service.has_stored_events else None
        self._early: Sequence[CurveChart] = ()
        self._early_at = -_EARLY_EVERY.total_seconds()
        self._unrecorded: Count[int] = Count(
            "sessions without a record are", every=_UNRECORDED_EVERY, patience=_PATIENCE
        )

    async def unrecorded(self) -> Counted[int] | None:
        """Return how many sessions of ADK's tables have no record, as counted lately.

        None while the first count is not done, or has failed.
        """
        return await self._unrecorded.latest(OverviewStore(self._store).unrecorded)

    async def reading(self, *, since: timedelta = SHOWN, by_app: bool = False) -> Reading:
        """Return the present state of the store and of the TTL policy.

        Its counts begin `since` ago, or SHOWN ago if that is longer. Without `by_app` all apps
        count as one.

        Raises:
            StoreUnavailableError: the store does not answer.
            TimeoutError: the store did not answer within TIMEOUT.
        """
        began = time.perf_counter()
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            overview = await OverviewStore(self._store).overview(
                since=max(since, SHOWN), by_app=by_app
            )
            webhook = (
                await WebhookStore(self._store).webhook_levels() if self._has_webhook else None
            )
            retention = None
            if self._retention_file is not None:
                retention = await read_state(self._store, self._retention_file)
        policy = self._service.policy
        return Reading(
            overview=overview,
            took=timedelta(seconds=time.perf_counter() - began),
            rules=self._store.rules,
            mode=policy.mode,
            targets=policy.targets,
            in_force=policy.in_force,
            sweeps=self._sweeps,
            webhook=webhook,
            retention=retention,
        )

    def _grown(self, now: datetime) -> Sequence[CurveChart]:
        """Return the curves that the TTL policy's daily reading gives."""
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

    async def curves(self, now: datetime) -> Sequence[CurveChart]:
        """Return the curves of the largest apps that have one, each with its TTL in force.

        They are made from what the TTL policy reads once a day. Before there is one, they are those
        of the first messages so far, read at most once a minute.
        """
        grown = self._grown(now)
        if grown:
            return grown
        if time.monotonic() - self._early_at >= _EARLY_EVERY.total_seconds():
            self._early_at = time.monotonic()
            self._early = await self._read_early()
        return self._early

    async def _read_early(self) -> Sequence[CurveChart]:
        if len(await OverviewStore(self._store).largest_apps(most=_FEW_APPS + 1)) > _FEW_APPS:
            return ()  # the newest first messages of each app would be too many to read
        ages = defaultdict[str, list[timedelta]](list)
        for heard in await TtlStore(self._store).recent_first_messages(
            newest=_EARLY_MESSAGES, max_age=SHOWN
        ):
            ages[heard.scope.app_name].append(heard.age)
        policy = self._service.policy
        return [
            early_chart(app, ages[app], ttl_of(Scope(app), policy.in_force, policy.default))
            for app in sorted(ages, key=lambda app: len(ages[app]), reverse=True)[:_MOST_CURVES]
        ]


def by_status(overview: Overview) -> dict[Status | None, int]:
    """Return how many sessions have each status; the key None has the total."""
    shown = (None, Status.WAITING, Status.USED, Status.EXPIRED, Status.ARCHIVED)
    return {status: tallied(overview.tallies, status) for status in shown}
