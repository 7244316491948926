"""The store with all its parts, until every slice is written as operations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import Any

from lapse.adoption.store import AdoptionStore
from lapse.audit.store import Audited
from lapse.notices.store import Watchable
from lapse.overview.store import Operated
from lapse.quotas.rules import Limiting
from lapse.runs.store import RunStore
from lapse.store.database import Database
from lapse.store.operation import Asking, operation, rows
from lapse.store.sessions import Sessions
from lapse.ttl.store import TtlStore


class Store(
    Sessions,
    RunStore,
    Watchable,
    TtlStore,
    AdoptionStore,
    Audited,
    Limiting,
    Operated,
    Database,
):
    """The store with all its parts."""

    @property
    def _database(self) -> Any:  # type: ignore[override]
        return self

    def hints(self, nearer: Callable[[timedelta], None]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def pending_migration(self) -> str:
        return (await self.inspect()).script

    @operation()
    def ping(self) -> Asking[None]:
        """Return when the store can be read and written."""
        yield from rows("ping")
