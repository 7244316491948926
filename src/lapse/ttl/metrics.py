"""Prometheus gauges of the TTL policy's decisions."""

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
        """Return the gauges, without samples for apps that share a label."""
        adaptive = self._policy.mode is Policy.ADAPTIVE
        yield GaugeMetricFamily(
            "lapse_ttl_default_seconds",
            "The TTL for apps without a learnt one.",
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
            "Upper confidence bound of the share of first messages after the TTL.",
            lambda decision: decision.bound,
        )
        yield self._gauge(
            "soft_miss_rate",
            "The share of observed first messages that came after the TTL.",
            lambda decision: decision.soft_miss_rate,
        )
        yield self._gauge(
            "hard_miss_rate",
            "The share of first messages that came when their session was purged.",
            lambda decision: decision.hard_miss_rate,
        )
        yield self._gauge(
            "observations",
            "First messages that the decision was made from.",
            lambda decision: decision.observations,
        )
        yield self._gauge(
            "control_alarm",
            "Whether the control group gets late messages that other sessions do not get.",
            lambda decision: decision.control_alarm,
        )
        status = GaugeMetricFamily(
            "lapse_ttl_status", "Why the TTL is what it is.", labels=(*_LABELS, "reason")
        )
        for scope, decision in self._labelled():
            status.add_metric((*scope, str(decision.reason)), 1)
        yield status

    def _labelled(self) -> Iterable[tuple[Scope, Decision]]:
        """Return the decisions of apps with a label of their own: apps share OTHER, but no TTL."""
        return [
            (scope, decision)
            for scope, decision in self._policy.in_force.items()
            if self._apps.of(scope.app_name) != OTHER
        ]

    def _gauge(self, name: str, help_text: str, value: _Value) -> Metric:
        gauge = GaugeMetricFamily(f"lapse_ttl_{name}", help_text, labels=_LABELS)
        for scope, decision in self._labelled():
            number = value(decision)
            if number is not None:
                gauge.add_metric(scope, float(number))
        return gauge
