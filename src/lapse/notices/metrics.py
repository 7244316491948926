"""Prometheus metrics of notices."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lapse.notices.watcher import Watcher


class NoticeMetrics(Collector):
    """How many streams of notices are open in one process."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def collect(self) -> Iterable[Metric]:
        """Return the gauge of open streams."""
        yield GaugeMetricFamily(
            "lapse_streams_open",
            "Streams of notices, in this process.",
            value=self._watcher.streams,
        )
