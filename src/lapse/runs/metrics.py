"""Prometheus metrics of runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lapse.runs.store import RunStatus
from lapse.telemetry.labels import AppLabels
from lapse.telemetry.shared_counts import LIVE

_DURATIONS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class RunMetrics:
    """The metrics of one process's runs and of their readers."""

    def __init__(self, registry: CollectorRegistry, apps: AppLabels) -> None:
        self._apps = apps
        self._started = Counter("lapse_runs_started", "Runs started.", ("app",), registry=registry)
        self._ended = Counter(
            "lapse_runs_ended", "Runs ended, by outcome.", ("app", "outcome"), registry=registry
        )
        self._durations = Histogram(
            "lapse_run_duration_seconds",
            "Time from a run's start to its end.",
            ("app",),
            buckets=_DURATIONS,
            registry=registry,
        )
        self._plain = Counter(
            "lapse_plain_runs",
            "Requests to ADK's own run routes that were not detached.",
            ("app", "route"),
            registry=registry,
        )
        self.in_flight = Gauge(
            "lapse_runs_in_flight",
            "Runs in flight in this server.",
            registry=registry,
            multiprocess_mode=LIVE,
        )
        self.readers = Gauge(
            "lapse_run_readers",
            "Readers of streams of runs.",
            registry=registry,
            multiprocess_mode=LIVE,
        )
        self.dropped = Counter(
            "lapse_run_readers_dropped",
            "Readers that were disconnected because they were too slow.",
            registry=registry,
        )
        self._resumes = Counter(
            "lapse_run_resumes", "Streams that were resumed.", ("app",), registry=registry
        )

    def count_start(self, app_name: str) -> None:
        """Count the start of a run, which is in flight until `count_end`."""
        self._started.labels(self._apps.of(app_name)).inc()
        self.in_flight.inc()

    def count_end(self, app_name: str, outcome: RunStatus, duration: timedelta) -> None:
        """Count the end of a run that `count_start` counted."""
        self._ended.labels(self._apps.of(app_name), str(outcome)).inc()
        self._durations.labels(self._apps.of(app_name)).observe(duration.total_seconds())
        self.in_flight.dec()

    def count_plain(self, app_name: str, route: str) -> None:
        """Count a request to one of ADK's own routes that run an agent."""
        self._plain.labels(self._apps.of(app_name), route).inc()

    def count_resume(self, app_name: str) -> None:
        """Count a stream that a reader resumes after a cursor."""
        self._resumes.labels(self._apps.of(app_name)).inc()
