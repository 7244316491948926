"""Prometheus metrics of the hooks of retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter

from lapse.telemetry.metrics import Follower

if TYPE_CHECKING:
    from lapse.retention.hooks import HookCalls, Outcome
    from lapse.retention.keeper import RetentionKeeper


class HookMetrics:
    """How the calls of hooks ended; no samples where no policy is kept."""

    def __init__(self, registry: CollectorRegistry, keeper: RetentionKeeper | None) -> None:
        self._counter = Counter(
            "lapse_retention_hooks",
            "Calls of what is done beside archiving and purging.",
            ("hook", "outcome"),
            registry=registry,
        )
        self._followers: dict[tuple[str, Outcome], Follower] = {}
        if keeper is not None:
            self._calls: HookCalls = keeper.hooked.calls
            self._calls.on_counts.append(self._count)
            self._count()

    def _count(self) -> None:
        for ended, number in self._calls.outcomes.items():
            if ended not in self._followers:
                name, outcome = ended
                self._followers[ended] = Follower(self._counter.labels(name, str(outcome)))
            self._followers[ended].follow(number)
