"""Prometheus gauges of what the store counts: levels, overdue sessions, sweeps, the brake."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lapse.core.errors import StoreUnavailableError
from lapse.overview.store import Overview, OverviewStore
from lapse.store.database import Database
from lapse.sweep.rules import BrakeReason
from lapse.telemetry.metrics import Metrics, Where

_log = logging.getLogger(__name__)

_CACHED_FOR: Final = timedelta(seconds=5)
"""The store is asked again only after this time, however often Prometheus scrapes."""

_NEVER: Final = -1e9
"""A time of the monotonic clock before every other: the store was not asked yet."""

_SAME: Final = "The same from every replica: take the maximum."


class StoreMetrics(Collector):
    """The gauges of the store, which every replica shows alike.

    While the store does not answer, only `lapse_store_up` and `lapse_cleanup_enabled` are shown.
    """

    def __init__(self, store: Database, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._apps = metrics.apps
        self._enforced = store.rules.enforced
        self._overview: Overview | None = None
        self._answer = timedelta(0)
        self._taken_at = _NEVER

    async def refresh(self) -> None:
        """Read the overview, unless it was read five seconds ago; forget it on an outage."""
        if time.monotonic() - self._taken_at < _CACHED_FOR.total_seconds():
            return
        began = time.monotonic()
        try:
            overview = await OverviewStore(self._store).overview(since=timedelta(0))
        except StoreUnavailableError as error:
            self._metrics.count_store_error(Where.SCRAPE)
            self._overview, self._taken_at = None, _NEVER
            _log.warning("what the store counts cannot be shown: %s", error)
        else:
            self._overview, self._taken_at = overview, time.monotonic()
            self._answer = timedelta(seconds=self._taken_at - began)

    def collect(self) -> Iterable[Metric]:
        """Return the gauges of the overview that `refresh` read."""
        overview = self._overview
        yield _gauge(
            "cleanup_enabled", "Whether clean-up is switched on in this process.", self._enforced
        )
        yield _gauge("store_up", "Whether the store answered this process.", overview is not None)
        if overview is None:
            return
        yield _gauge(
            "store_answer_seconds",
            "How long the store took to answer this process.",
            self._answer.total_seconds(),
        )
        yield self._sessions(overview)
        yield _gauge(
            "overdue_seconds",
            f"How long the longest overdue session has been waiting for a sweep. {_SAME}",
            overview.overdue.total_seconds() if self._enforced else 0,
        )
        if overview.swept_at is not None:
            yield _gauge(
                "last_sweep_age_seconds",
                f"Time since a sweeper of any process last reported. {_SAME}",
                (overview.now - overview.swept_at).total_seconds(),
            )

        brake = GaugeMetricFamily(
            "lapse_brake", f"Whether this brake holds every purge. {_SAME}", labels=("reason",)
        )
        for reason in BrakeReason:
            held = overview.brake is not None and overview.brake.reason is reason
            brake.add_metric((str(reason),), held)
        yield brake

    def _sessions(self, overview: Overview) -> Metric:
        levels = Counter[tuple[str, str]]()
        for tally in overview.tallies:
            levels[self._apps.of(tally.app_name), str(tally.status)] += tally.sessions
        gauge = GaugeMetricFamily(
            "lapse_sessions",
            f"Sessions in the lobby's records. {_SAME}",
            labels=("app", "status"),
        )
        for labels, sessions in levels.items():
            gauge.add_metric(labels, sessions)
        return gauge


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lapse_{name}", help_text, value=value)
