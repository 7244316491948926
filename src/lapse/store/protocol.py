"""The store with all its parts, until every slice is written as operations."""

from __future__ import annotations

from typing import Any

from lapse.adoption.store import AdoptionStore
from lapse.audit.store import Audited
from lapse.check.store import HealthStore
from lapse.notices.store import Watchable
from lapse.overview.store import OverviewStore
from lapse.quotas.store import QuotaStore
from lapse.runs.store import RunStore
from lapse.store.database import Database
from lapse.store.sessions import Sessions
from lapse.sweep.store import SweepStore
from lapse.ttl.store import TtlStore


class Store(
    Sessions,
    RunStore,
    Watchable,
    TtlStore,
    AdoptionStore,
    Audited,
    QuotaStore,
    OverviewStore,
    SweepStore,
    HealthStore,
    Database,
):
    """The store with all its parts."""

    @property
    def _database(self) -> Any:  # type: ignore[override]
        return self
