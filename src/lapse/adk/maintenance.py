"""What keeps a store small and fast, wherever a service is its only process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from lapse.adoption.store import AdoptionStore
from lapse.overview.store import OverviewStore
from lapse.quotas.store import QuotaStore
from lapse.store.database import Database


def maintenance_of(database: Database) -> Sequence[Callable[[], Awaitable[object]]]:
    """Return the operations of the slices that a process does every few minutes.

    The TTL policy folds its observations itself, once a day: only it knows which segments to keep.
    """
    return (
        OverviewStore(database).fold_counts,
        QuotaStore(database).forget_buckets,
        AdoptionStore(database).forget_adopted,
    )
