"""The metrics that every process that sweeps or serves has of its store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lapse.overview.metrics import StoreMetrics
from lapse.retention.hook_metrics import HookMetrics
from lapse.retention.metrics import RetentionMetrics
from lapse.webhooks.metrics import WebhookMetrics

if TYPE_CHECKING:
    from lapse.core.feed import Feed
    from lapse.retention.keeper import RetentionKeeper
    from lapse.store.database import Database
    from lapse.telemetry.metrics import Metrics
    from lapse.webhooks.sender import WebhookSender


def count_store(
    store: Database,
    feed: Feed,
    metrics: Metrics,
    *,
    webhooks: WebhookSender | None,
    keeper: RetentionKeeper | None,
    retention_file: Path | None,
    is_retention_possible: bool,
) -> None:
    """Count the changes of a feed, and show how the store, its webhook and retention stand."""
    feed.subscribe(metrics.count_change, of_many=metrics.count_expiries)
    HookMetrics(metrics.registry, keeper)
    for shown in (
        StoreMetrics(store, metrics),
        RetentionMetrics(store, retention_file, is_possible=is_retention_possible),
        WebhookMetrics(metrics.registry, store, webhooks),
    ):
        metrics.before_scrape(shown.refresh)
        metrics.registry.register(shown)
