"""Prometheus gauges of retention: whether a policy is in force, what is due, pinned and on hold."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lapse.core.errors import StoreUnavailableError
from lapse.retention.state import RetentionState, read_state
from lapse.store.database import Database

_CACHED_FOR: Final = timedelta(seconds=5)
_SAME: Final = "The same from every replica: take the maximum."
_OWN: Final = "Of the policy file of this process: take the maximum."


class RetentionMetrics(Collector):
    """How retention stands; no samples where it cannot work, or of a policy without one.

    Args:
        database: the store.
        file: the policy file; None: there is none.
        is_possible: whether the used sessions are in the store.
    """

    def __init__(self, database: Database, file: Path | None, *, is_possible: bool) -> None:
        self._database = database
        self._file = file
        self._is_possible = is_possible
        self._state: RetentionState | None = None
        self._taken_at: float | None = None

    async def refresh(self) -> None:
        """Read how retention stands, unless it was read five seconds ago.

        While the store does not answer, the gauges are absent; `lapse_store_up` tells why.
        """
        now = time.monotonic()
        fresh = self._taken_at is not None and now - self._taken_at < _CACHED_FOR.total_seconds()
        if not self._is_possible or fresh:
            return
        try:
            self._state, self._taken_at = await read_state(self._database, self._file), now
        except StoreUnavailableError:
            self._state = self._taken_at = None

    def collect(self) -> Iterable[Metric]:
        """Return the gauges that `refresh` read."""
        state = self._state
        levels = None if state is None else state.levels
        with_policy = state if state is not None and state.file is not None else None
        yield _gauge("pinned", f"Pinned sessions, counted up to 10,000. {_SAME}", levels, "pinned")
        yield _gauge("holds", f"Holds, counted up to 10,000. {_SAME}", levels, "holds")
        yield _gauge(
            "in_force", f"Whether the policy is in force. {_OWN}", with_policy, "is_in_force"
        )
        yield _gauge("faults", f"Faults in the policy. {_OWN}", with_policy, "faults")
        yield _gauge(
            "unconfirmed_seconds",
            f"How long the policy has been without effect. {_OWN}",
            with_policy,
            "unconfirmed_for",
        )
        yield _gauge(
            "due",
            f"Sessions that wait for a sweep by the policy, counted up to 10,000. {_SAME}",
            with_policy,
            "due",
        )
        yield _gauge(
            "overdue_seconds",
            f"How long the first of them has waited. {_SAME}",
            with_policy,
            "overdue",
        )


def _gauge(name: str, text: str, of: object | None, attribute: str) -> Metric:
    gauge = GaugeMetricFamily(f"lapse_retention_{name}", text, labels=())
    if of is not None:
        value = getattr(of, attribute)
        gauge.add_metric((), value.total_seconds() if isinstance(value, timedelta) else value)
    return gauge
