"""Prometheus metrics of quotas."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from lapse.quotas.admission import Admission
from lapse.quotas.rules import Drawer


class QuotaMetrics(Collector):
    """Counters of creations that were refused or reused, and of sessions over a quota."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def collect(self) -> Iterable[Metric]:
        """Return the counters of this process."""
        refused = CounterMetricFamily(
            "lapse_creates_refused", "Creations refused, by whose limit.", labels=("limit",)
        )
        for drawer in Drawer:
            refused.add_metric((str(drawer),), self._admission.refused[drawer])
        yield refused
        yield CounterMetricFamily(
            "lapse_sessions_over_quota",
            "Sessions expired because of a quota.",
            value=self._admission.exceeded,
        )
        yield CounterMetricFamily(
            "lapse_sessions_reused",
            "Creations that came to an empty session.",
            value=self._admission.reused,
        )
