"""A store with all its parts under one name, for tests that use several."""

from datetime import datetime

from lapse.adoption.store import AdoptionStore
from lapse.artifacts.outbox import Outbox
from lapse.artifacts.uploads import UploadStore
from lapse.audit.store import AuditLog
from lapse.check.store import HealthStore
from lapse.core.lifecycle import Rules
from lapse.idempotency.store import IdempotencyStore
from lapse.notices.store import NoticeStore
from lapse.overview.store import OverviewStore
from lapse.quotas.store import QuotaStore
from lapse.runs.repeats import RepeatStore
from lapse.runs.store import RunStore
from lapse.store import store_from_url
from lapse.store.attempts import AttemptStore
from lapse.store.database import Database
from lapse.store.holding import HoldStore
from lapse.store.options import ConnectionOptions
from lapse.store.sessions import Sessions
from lapse.sweep.store import SweepStore
from lapse.ttl.store import TtlStore


class Store(
    Sessions,
    RunStore,
    NoticeStore,
    TtlStore,
    AdoptionStore,
    AuditLog,
    Outbox,
    UploadStore,
    QuotaStore,
    OverviewStore,
    SweepStore,
    HealthStore,
    AttemptStore,
    IdempotencyStore,
    RepeatStore,
    HoldStore,
):
    """All parts on one database; it can also be passed where a database is expected."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        for name in ("open", "close", "inspect", "run", "listen", "notify", "default_to"):
            setattr(self, name, getattr(database, name))

    @property
    def database(self) -> Database:
        return self._database

    def at(self, now: datetime) -> "Store":
        return Store(self._database.at(now))


def store_with_parts(
    url: str, rules: Rules | None = None, options: ConnectionOptions | None = None
) -> Store:
    """Return the store that a URL names, with all its parts."""
    return Store(store_from_url(url, rules, options))


class Intercepted:
    """A database that lets a test wrap operations by their names."""

    def __init__(self, database):
        self._database = database

    async def around(self, name, do):
        """Do an operation; a test's own class does more for some names."""
        return await do()

    async def run(self, asking, **options):
        begun = asking()
        begun.close()
        return await self.around(begun.__name__, lambda: self._database.run(asking, **options))

    def __getattr__(self, name):
        return getattr(self._database, name)
