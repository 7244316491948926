"""What a store says of itself, as Prometheus reads it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lapse.overview.store import BrakeReason, Overview
from lapse.telemetry.labels import AppLabels

_KEPT: Final = timedelta(seconds=5)
"""How old the numbers that all replicas share may be, whoever asks and how often."""

_LONG_AGO: Final = -1e9

_SAME: Final = "The same from every replica: take the maximum."


class StoreMetrics(Collector):
    """What the store says, and so every replica; nothing of it while the store does not answer."""

    def __init__(self, apps: AppLabels, *, enforced: bool) -> None:
        self._apps = apps
        self._enforced = enforced
        self._overview: Overview | None = None
        self._answer = timedelta(0)
        self._taken_at = _LONG_AGO

    @property
    def is_old(self) -> bool:
        """Return whether the store should be asked again."""
        return time.monotonic() - self._taken_at >= _KEPT.total_seconds()

    def take(self, overview: Overview, answer: timedelta) -> None:
        """Show this from now on, which the store took so long to say."""
        self._overview, self._answer = overview, answer
        self._taken_at = time.monotonic()

    def forget(self) -> None:
        """Show nothing: the store does not answer."""
        self._overview, self._taken_at = None, _LONG_AGO

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
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
                f"Since a sweeper of any process last said that it works. {_SAME}",
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
