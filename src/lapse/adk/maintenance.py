"""The slices' maintenance operations, which keep a store small and fast."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from lapse.adoption.store import AdoptionStore
from lapse.conversations.unreachable import Unreachable
from lapse.idempotency.store import IdempotencyStore
from lapse.overview.store import OverviewStore
from lapse.quotas.store import QuotaStore
from lapse.store.attempts import AttemptStore
from lapse.store.database import Database
from lapse.webhooks.store import WebhookStore


def maintenance_of(
    database: Database, *, converses: bool = False
) -> Sequence[Callable[[], Awaitable[object]]]:
    """Return the operations that every process runs each few minutes.

    Folding the TTL's observations is not one of them. The TTL policy does that itself, once a day,
    because only it knows which segments to keep. `converses` says that this process knows the
    service in which used sessions live.
    """
    return (
        *(() if converses else (Unreachable(database).look,)),
        OverviewStore(database).fold_counts,
        QuotaStore(database).forget_buckets,
        AdoptionStore(database).forget_adopted,
        AttemptStore(database).forget_attempts,
        IdempotencyStore(database).maintain,
        WebhookStore(database).maintain_webhooks,
    )
