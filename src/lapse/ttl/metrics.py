"""What the TTL policy has decided, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lapse.telemetry.labels import OTHER, AppLabels
from lapse.ttl import Decision, Policy, Scope
from lapse.ttl.policy import TtlPolicy

_LABELS: Final = ("app", "segment")
_Value: TypeAlias = Callable[[Decision], float | None]


class TtlMetrics(Collector):
    """The decisions in force in this process, one sample for each app and segment."""

    def __init__(self, policy: TtlPolicy, apps: AppLabels) -> None:
        self._policy = policy
        self._apps = apps

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        adaptive = self._policy.mode is Policy.ADAPTIVE
        yield GaugeMetricFamily(
            "lapse_ttl_default_seconds",
            "The TTL where none was learnt.",
            value=self._policy.default.total_seconds(),
        )
        yield GaugeMetricFamily(
            "lapse_ttl_applied", "Whether learnt TTLs are applied.", value=float(adaptive)
        )
        yield self._gauge(
            "seconds",
            "The TTL that was learnt.",
            lambda decision: None if decision.ttl is None else decision.ttl.total_seconds(),
        )
        yield self._gauge(
            "bound",
            "The share of first messages after the TTL is at most this.",
            lambda decision: decision.bound,
        )
        yield self._gauge(
            "soft_miss_rate",
            "The share of observed first messages that came after the TTL.",
            lambda decision: decision.soft_miss_rate,
        )
        yield self._gauge(
            "hard_miss_rate",
            "The share of messages that came when nothing was left to resurrect.",
            lambda decision: decision.hard_miss_rate,
        )
        yield self._gauge(
            "observations",
            "First messages that the decision is made from.",
            lambda decision: decision.observations,
        )
        yield self._gauge(
            "control_alarm",
            "Whether the control group hears late messages that the others do not.",
            lambda decision: decision.control_alarm,
        )
        status = GaugeMetricFamily(
            "lapse_ttl_status", "Why the TTL is what it is.", labels=(*_LABELS, "reason")
        )
        for scope, decision in self._standing():
            status.add_metric((*scope, str(decision.reason)), 1)
        yield status

    def _standing(self) -> Iterable[tuple[Scope, Decision]]:
        """Return the decisions, but for apps without a label of their own: they have no one TTL."""
        return [
            (scope, decision)
            for scope, decision in self._policy.standing.items()
            if self._apps.of(scope.app_name) != OTHER
        ]

    def _gauge(self, name: str, help_text: str, value: _Value) -> Metric:
        gauge = GaugeMetricFamily(f"lapse_ttl_{name}", help_text, labels=_LABELS)
        for scope, decision in self._standing():
            number = value(decision)
            if number is not None:
                gauge.add_metric(scope, float(number))
        return gauge
