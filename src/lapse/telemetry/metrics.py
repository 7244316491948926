"""Prometheus metrics: counters of changes, and the registry that all collectors share."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from lapse.core.lifecycle import Change, ChangeKind, Expiries, Status
from lapse.telemetry.labels import AppLabels
from lapse.telemetry.shared_counts import with_sums

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ENDS: Final = {ChangeKind.EXPIRED, ChangeKind.PURGED}

_AGES: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400)
_LATENESSES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 600, 3600)


class Where(StrEnum):
    """The activity that needed the store when it did not answer: a value of the label `where`."""

    REQUEST = "request"
    SWEEP = "sweep"
    SCRAPE = "scrape"


class _Latenesses(Histogram):
    """A histogram that takes many values at once; the library's takes them one by one.

    It writes to private attributes, as the library's own `observe` does. The test that a backlog is
    counted as single expiries are fails if a new version renames them.
    """

    def observe_all(self, ascending: Sequence[float]) -> None:
        below = 0
        for bound, bucket in zip(self._upper_bounds, self._buckets, strict=True):
            up_to = bisect_right(ascending, bound)
            bucket.inc(up_to - below)
            below = up_to
        self._sum.inc(sum(ascending))


class Follower:
    """A counter that follows a number which only grows."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._seen = 0

    def follow(self, number: int) -> None:
        """Count what the number has grown by."""
        self._counter.inc(number - self._seen)
        self._seen = number


class Metrics:
    """The metrics of one process, in a registry of its own.

    Counters and histograms count what this process did, or if it is a worker, what all workers of
    its server did: sum them over the replicas. Gauges of the store are the same on every replica:
    take their maximum.

    Attributes:
        registry: the registry; `web/application.py` adds the collectors of the slices.
        apps: the labels of apps, which all metrics of the process share.
    """

    def __init__(self) -> None:
        self.apps = AppLabels()
        self.registry = CollectorRegistry()
        self._refreshes: list[Callable[[], Awaitable[None]]] = []

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"lapse_{name}", help_text, labels, registry=self.registry)

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
        self._archived = counter("sessions_archived", "Used sessions moved to the archive.", "app")
        self._restored = counter(
            "sessions_restored", "Archived sessions brought back, by what did it.", "app", "cause"
        )
        self._adopted = counter("sessions_adopted", "Sessions adopted from ADK's tables.", "app")
        self._used_but_expired = counter(
            "used_sessions_expired", "Used sessions that expired or were purged; it must stay 0."
        )
        self._store_errors = counter(
            "store_errors", "Times the store did not answer, by what needed it.", "where"
        )
        # The samples exist from the start, because Prometheus sees no increase in a counter that
        # first appears with 1.
        for where in Where:
            self._store_errors.labels(str(where))
        self._ages = Histogram(
            "lapse_time_to_first_message_seconds",
            "Age of a session at its first message.",
            ("app",),
            buckets=_AGES,
            registry=self.registry,
        )
        self._lateness = _Latenesses(
            "lapse_expiry_lateness_seconds",
            "Moment of expiry minus the deadline.",
            ("app",),
            buckets=_LATENESSES,
            registry=self.registry,
        )

    def count_change(self, change: Change) -> None:  # noqa: C901, PLR0912 - one line for each kind
        """Count one change; it is a consumer of the feed."""
        app = self.apps.of(change.record.key.app_name)
        record = change.record
        used = record.first_message_at is not None and record.status is not Status.ARCHIVED
        if change.kind in _ENDS and used:
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
            case ChangeKind.ARCHIVING:
                pass
            case ChangeKind.ARCHIVED:
                self._archived.labels(app).inc()
            case ChangeKind.RESTORED:
                self._restored.labels(app, str(change.cause)).inc()

    def count_expiries(self, expiries: Expiries) -> None:
        """Count expiries of a backlog as `count_change` counts their single changes."""
        app = self.apps.of(expiries.app_name)
        self._expired.labels(app).inc(len(expiries))
        self._lateness.labels(app).observe_all(expiries.latenesses)

    def count_store_error(self, where: Where) -> None:
        """Count that the store did not answer `where` it was needed."""
        self._store_errors.labels(str(where)).inc()

    def before_scrape(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """Await `refresh` before each scrape; it brings a collector up to date.

        It has to handle its failures: an exception of `refresh` fails the scrape.
        """
        self._refreshes.append(refresh)

    async def render(self) -> bytes:
        """Refresh the collectors, and return all metrics in Prometheus' text format."""
        for refresh in self._refreshes:
            await refresh()
        return generate_latest(await with_sums(self.registry))
