"""Prometheus metrics of notices."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from lapse.notices.watcher import Watcher
from lapse.telemetry.shared_counts import LIVE


def count_streams(registry: CollectorRegistry, watcher: Watcher) -> None:
    """Show how many streams of notices are open: in one process, or in all workers of a server."""
    streams = Gauge(
        "lapse_streams_open",
        "Streams of notices, in this server.",
        registry=registry,
        multiprocess_mode=LIVE,
    )
    watcher.on_streams.append(streams.inc)
