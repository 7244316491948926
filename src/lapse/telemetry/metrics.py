"""Prometheus metrics: a consumer of changes and of sweep reports."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lapse.core.errors import StoreUnavailableError
from lapse.core.lifecycle import Change, ChangeKind
from lapse.overview.metrics import StoreMetrics
from lapse.overview.store import BrakeReason
from lapse.store.protocol import Store
from lapse.sweep.sweeper import SweepReport
from lapse.telemetry.labels import AppLabels

_log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ENDS: Final = {ChangeKind.EXPIRED, ChangeKind.PURGED}

_AGES: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400)
_LATENESSES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 600, 3600)
_SWEEPS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class Where(StrEnum):
    """What was being done when the store did not answer."""

    REQUEST = "request"
    SWEEP = "sweep"
    SCRAPE = "scrape"


class Metrics:
    """The metrics of one process on one store, in a registry of their own.

    Counters and histograms count what this process did: add those of all replicas. What the store
    says is the same from each replica: take the maximum.

    Attributes:
        registry: where others register theirs.
        apps: the labels of apps, for these and others' metrics.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.apps = AppLabels()
        self.registry = CollectorRegistry()
        self._shared = StoreMetrics(self.apps, enforced=store.rules.enforced)
        self.registry.register(self._shared)

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
        self._used_but_expired = counter(
            "used_sessions_expired", "Used sessions that expired or were purged: must never be."
        )
        self._plain_runs = counter(
            "plain_runs", "Requests to ADK's own run routes, not detached.", "app", "route"
        )
        self._store_errors = counter(
            "store_errors", "Times the store did not answer, by what needed it.", "where"
        )
        # There from the start: of a counter that begins at one, Prometheus sees no increase.
        for where in Where:
            self._store_errors.labels(str(where))
        for reason in BrakeReason:
            self._brakes.labels(str(reason))
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
        app = self.apps.of(change.record.key.app_name)
        if change.kind in _ENDS and change.record.first_message_at is not None:
            self._used_but_expired.inc()
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

    def count_fault(self, fault: Exception) -> None:
        """Count one failed sweep."""
        self._sweep_errors.inc()
        if isinstance(fault, StoreUnavailableError):
            self.count_store_error(Where.SWEEP)

    def count_store_error(self, where: Where) -> None:
        """Count that the store did not answer."""
        self._store_errors.labels(str(where)).inc()

    def count_plain_run(self, app_name: str, route: str) -> None:
        """Count a request to one of ADK's own routes that run an agent."""
        self._plain_runs.labels(self.apps.of(app_name), route).inc()

    def watch_streams(self, streams: Callable[[], int]) -> None:
        """Show how many streams of notices are open."""
        gauge = Gauge(
            "lapse_streams_open", "Streams of notices, in this process.", registry=self.registry
        )
        gauge.set_function(streams)

    async def render(self) -> bytes:
        """Return the metrics as Prometheus reads them."""
        if self._shared.is_old:
            began = time.monotonic()
            try:
                overview = await self._store.overview(since=timedelta(0))
            except StoreUnavailableError as error:
                self.count_store_error(Where.SCRAPE)
                self._shared.forget()
                _log.warning("what the store counts cannot be shown: %s", error)
            else:
                self._shared.take(overview, timedelta(seconds=time.monotonic() - began))
        return generate_latest(self.registry)
