"""Prometheus metrics of quotas."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from lapse.quotas.admission import Admission
from lapse.quotas.rules import Drawer
from lapse.telemetry.metrics import Follower


class QuotaMetrics:
    """Counters of creations that were refused or reused, and of sessions over a quota."""

    def __init__(self, registry: CollectorRegistry, admission: Admission) -> None:
        self._admission = admission
        refused = Counter(
            "lapse_creates_refused",
            "Creations refused, by whose limit.",
            ("limit",),
            registry=registry,
        )
        self._refused = {drawer: Follower(refused.labels(str(drawer))) for drawer in Drawer}
        self._exceeded = Follower(
            Counter(
                "lapse_sessions_over_quota",
                "Sessions expired because of a quota.",
                registry=registry,
            )
        )
        self._reused = Follower(
            Counter(
                "lapse_sessions_reused",
                "Creations that came to an empty session.",
                registry=registry,
            )
        )
        admission.on_counts.append(self._count)
        self._count()

    def _count(self) -> None:
        for drawer, follower in self._refused.items():
            follower.follow(self._admission.refused[drawer])
        self._exceeded.follow(self._admission.exceeded)
        self._reused.follow(self._admission.reused)
