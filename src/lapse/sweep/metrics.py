"""Prometheus metrics of the sweeper."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

from lapse.core.errors import StoreUnavailableError
from lapse.sweep.rules import BrakeReason
from lapse.sweep.sweeper import SweepReport
from lapse.telemetry.metrics import Metrics, Where

_DURATIONS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class SweepMetrics:
    """The metrics of one process's sweeps; its methods are called by the sweeper."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._brakes = Counter(
            "lapse_brakes",
            "Brakes of the sweepers that were set.",
            ("reason",),
            registry=metrics.registry,
        )
        # Each exists from the start: Prometheus sees no increase in a counter that begins at 1.
        for reason in BrakeReason:
            self._brakes.labels(str(reason))
        self._errors = Counter(
            "lapse_sweep_errors", "Sweeps that failed.", registry=metrics.registry
        )
        self._sweeps = Histogram(
            "lapse_sweep_duration_seconds",
            "Duration of one batch of a sweep.",
            buckets=_DURATIONS,
            registry=metrics.registry,
        )

    def count_sweep(self, report: SweepReport) -> None:
        """Record the duration of a sweep, and the brake that this process has set."""
        self._sweeps.observe(report.duration.total_seconds())
        if report.braking.is_ours and report.braking.brake is not None:
            self._brakes.labels(str(report.braking.brake.reason)).inc()

    def count_fault(self, fault: Exception) -> None:
        """Count a failed sweep, and the store's error if it was unavailable."""
        self._errors.inc()
        if isinstance(fault, StoreUnavailableError):
            self._metrics.count_store_error(Where.SWEEP)
