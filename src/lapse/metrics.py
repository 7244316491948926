"""Prometheus metrics: a consumer of changes and of sweep reports."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lapse.errors import StoreUnavailableError
from lapse.lifecycle import Change, ChangeKind
from lapse.operating import Brake, BrakeReason, Tally
from lapse.store import Store
from lapse.sweeper import SweepReport

_log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_TALLIES_KEPT: Final = timedelta(seconds=15)
"""How old the gauges of the store may be."""

_AGES: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400)
_LATENESSES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 600, 3600)
_SWEEPS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class Metrics:
    """The metrics of one process on one store, in a registry of their own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tallies: Sequence[Tally] = ()
        self._brake: Brake | None = None
        self._tallied_at = -float("inf")
        self.registry = CollectorRegistry()
        self.registry.register(_Sessions(self))

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"lapse_{name}", help_text, labels, registry=self.registry)

        def histogram(name: str, help_text: str, buckets: Iterable[float]) -> Histogram:
            return Histogram(
                f"lapse_{name}", help_text, ("app",), buckets=tuple(buckets), registry=self.registry
            )

        self._created = counter("sessions_created", "Sessions created.", "app")
        self._used = counter("first_messages", "Sessions that had their first message.", "app")
        self._expired = counter("sessions_expired", "Sessions that expired.", "app")
        self._resurrected = counter(
            "sessions_resurrected", "Sessions resurrected, by what did it.", "app", "cause"
        )
        self._purged = counter("sessions_purged", "Expired sessions deleted for good.", "app")
        self._deleted = counter("sessions_deleted", "Sessions deleted by their owner.", "app")
        self._extended = counter("sessions_extended", "Deadlines extended.", "app")
        self._amended = counter("sessions_amended", "Records amended.", "app")
        self._kept = counter(
            "sessions_kept", "Sessions found in ADK's tables at their deadline, and kept.", "app"
        )
        self._adopted = counter("sessions_adopted", "Sessions adopted from ADK's tables.", "app")
        self._brakes = counter("brakes", "Brakes of the sweepers that were set.", "reason")
        self._sweep_errors = counter("sweep_errors", "Sweeps that failed.")
        self._ages = histogram(
            "time_to_first_message_seconds", "Age of a session at its first message.", _AGES
        )
        self._lateness = histogram(
            "expiry_lateness_seconds", "Moment of expiry minus the deadline.", _LATENESSES
        )
        self._sweeps = Histogram(
            "lapse_sweep_duration_seconds",
            "Duration of one batch of a sweep.",
            buckets=_SWEEPS,
            registry=self.registry,
        )

    def count_change(self, change: Change) -> None:  # noqa: C901 - one line for each kind
        """Count one change; a consumer of the feed."""
        app = change.record.key.app_name
        match change.kind:
            case ChangeKind.CREATED:
                self._created.labels(app).inc()
            case ChangeKind.USED:
                self._used.labels(app).inc()
                self._ages.labels(app).observe(change.age.total_seconds())
            case ChangeKind.EXTENDED:
                self._extended.labels(app).inc()
            case ChangeKind.AMENDED:
                self._amended.labels(app).inc()
            case ChangeKind.EXPIRED:
                self._expired.labels(app).inc()
                self._lateness.labels(app).observe(
                    (change.lateness or timedelta(0)).total_seconds()
                )
            case ChangeKind.RESURRECTED:
                self._resurrected.labels(app, str(change.cause)).inc()
            case ChangeKind.PURGED:
                self._purged.labels(app).inc()
            case ChangeKind.DELETED:
                self._deleted.labels(app).inc()
            case ChangeKind.KEPT:
                self._kept.labels(app).inc()
            case ChangeKind.ADOPTED:
                self._adopted.labels(app).inc()

    def count_sweep(self, report: SweepReport) -> None:
        """Count one sweep."""
        self._sweeps.observe(report.duration.total_seconds())
        if report.braking.is_ours and report.braking.brake is not None:
            self._brakes.labels(str(report.braking.brake.reason)).inc()

    def count_fault(self, _fault: Exception) -> None:
        """Count one failed sweep."""
        self._sweep_errors.inc()

    async def render(self) -> bytes:
        """Return the metrics as Prometheus reads them."""
        if time.monotonic() - self._tallied_at >= _TALLIES_KEPT.total_seconds():
            try:
                self._tallies = await self._store.tallies()
                self._brake = await self._store.brake()
                self._tallied_at = time.monotonic()
            except StoreUnavailableError as error:
                _log.warning("the gauges of the store are out of date: %s", error)
        return generate_latest(self.registry)

    def sessions(self) -> Metric:
        """Return the gauge of sessions by app and status, as last counted."""
        gauge = GaugeMetricFamily(
            "lapse_sessions", "Sessions in the lobby's records.", labels=("app", "status")
        )
        for tally in self._tallies:
            gauge.add_metric((tally.app_name, str(tally.status)), tally.sessions)
        return gauge

    def brake(self) -> Metric:
        """Return the gauge that says which brake is set."""
        gauge = GaugeMetricFamily(
            "lapse_brake", "1 while this brake keeps the sweepers from purging.", labels=("reason",)
        )
        for reason in BrakeReason:
            held = self._brake is not None and self._brake.reason is reason
            gauge.add_metric((str(reason),), int(held))
        return gauge


class _Sessions(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        yield self._metrics.sessions()
        yield self._metrics.brake()
