"""Prometheus metrics of the webhook."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lapse.core.errors import StoreUnavailableError
from lapse.store.database import Database
from lapse.telemetry.metrics import Follower
from lapse.webhooks.rules import EventKind
from lapse.webhooks.store import WebhookLevels, WebhookStore

if TYPE_CHECKING:
    from lapse.webhooks.sender import WebhookSender

_CACHED_FOR: Final = timedelta(seconds=5)
_SAME: Final = "The same from every replica: take the maximum."


class WebhookMetrics(Collector):
    """What was sent, and how the outbox stands; no samples without a webhook."""

    def __init__(
        self, registry: CollectorRegistry, database: Database, sender: WebhookSender | None
    ) -> None:
        self._store, self._sender = WebhookStore(database), sender
        sent = Counter(
            "lapse_webhooks_sent", "Events that the webhook took.", ("event",), registry=registry
        )
        failed = Counter(
            "lapse_webhooks_failed", "Attempts to send an event that failed.", registry=registry
        )
        self._failed = Follower(failed)
        self._sent: dict[EventKind, Follower] = {}
        if sender is not None:
            self._sent = {kind: Follower(sent.labels(str(kind))) for kind in EventKind}
            sender.on_counts.append(self._count)
            self._count()
        self._levels: WebhookLevels | None = None
        self._taken_at: float | None = None

    async def refresh(self) -> None:
        """Read how the outbox stands, unless it was read five seconds ago or there is no webhook.

        While the store does not answer, the gauges are absent; `lapse_store_up` tells why.
        """
        now = time.monotonic()
        fresh = self._taken_at is not None and now - self._taken_at < _CACHED_FOR.total_seconds()
        if self._sender is None or fresh:
            return
        try:
            self._levels, self._taken_at = await self._store.webhook_levels(), now
        except StoreUnavailableError:
            self._levels = self._taken_at = None

    def _count(self) -> None:
        assert self._sender is not None, "it calls"
        for kind, follower in self._sent.items():
            follower.follow(self._sender.sent[kind])
        self._failed.follow(self._sender.failed)

    def collect(self) -> Iterable[Metric]:
        """Return the gauges that `refresh` read."""
        levels = self._levels
        waits = () if levels is None else (levels.undelivered,)
        oldest = () if levels is None else (levels.oldest.total_seconds(),)
        given_up = () if levels is None else (levels.given_up,)
        yield _gauge("undelivered", "Events that wait, counted up to 10,000.", *waits)
        yield _gauge("oldest_seconds", "How long ago the first that waits happened.", *oldest)
        yield _gauge(
            "given_up", "Events given up in the last 30 days, counted up to 10,000.", *given_up
        )


def _gauge(name: str, text: str, *values: float) -> Metric:
    gauge = GaugeMetricFamily(f"lapse_webhooks_{name}", f"{text} {_SAME}", labels=())
    for value in values:
        gauge.add_metric((), value)
    return gauge
