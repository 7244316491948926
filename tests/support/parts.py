"""A store with all its parts under one name, for tests that use several."""

from dataclasses import replace
from datetime import datetime

from lapse.adoption.store import AdoptionStore
from lapse.artifacts.outbox import Outbox
from lapse.artifacts.uploads import UploadStore
from lapse.audit.store import AuditLog
from lapse.check.store import HealthStore
from lapse.conversations.store import HandOverStore
from lapse.core.lifecycle import Rules
from lapse.idempotency.store import IdempotencyStore
from lapse.notices.store import NoticeStore
from lapse.overview.processes import ProcessStore
from lapse.overview.store import OverviewStore
from lapse.quotas.store import QuotaStore
from lapse.retention.archive import ArchiveStore
from lapse.retention.exemptions import ExemptionStore
from lapse.retention.levels import RetentionLevelStore
from lapse.retention.memory_outbox import MemoryOutbox
from lapse.retention.scan import ScanStore
from lapse.retention.store import RetentionStore
from lapse.retention.sweep import RetentionSweepStore
from lapse.runs.repeats import RepeatStore
from lapse.runs.store import RunStore
from lapse.store import store_from_url
from lapse.store.attempts import AttemptStore
from lapse.store.database import Database
from lapse.store.holding import HoldStore
from lapse.store.options import ConnectionOptions, PostgresFeature
from lapse.store.sessions import Sessions
from lapse.sweep.store import SweepStore
from lapse.ttl.store import TtlStore
from lapse.webhooks.store import WebhookStore


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
    ProcessStore,
    SweepStore,
    HealthStore,
    AttemptStore,
    IdempotencyStore,
    RepeatStore,
    HoldStore,
    HandOverStore,
    WebhookStore,
    RetentionStore,
    ArchiveStore,
    ExemptionStore,
    RetentionSweepStore,
    RetentionLevelStore,
    ScanStore,
    MemoryOutbox,
):
    """All parts on one database; it can also be passed where a database is expected."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        for name in (
            "open",
            "close",
            "inspect",
            "run",
            "listen",
            "notify",
            "default_to",
            "snapshot",
            "scrub",
        ):
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
    return Store(store_from_url(url, rules, options_for(url, options)))


def options_for(url: str, options: ConnectionOptions | None = None) -> ConnectionOptions | None:
    """Return these options, with what a database of the tests lacks."""
    if "/plain_" not in url:
        return options
    return replace(options or ConnectionOptions(), without=frozenset(PostgresFeature))


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


class Overtaken(Intercepted):
    """A database on which others act between the statements of an operation.

    `act` is called with the name of each statement that was answered; it does not return before the
    others have ended.
    """

    def __init__(self, database, act):
        super().__init__(database)
        self.act = act

    async def run(self, asking, **options):
        def overtaken():
            begun = asking()
            try:
                request = next(begun)
                while True:
                    answer = yield request
                    self.act(getattr(request, "name", None))
                    request = begun.send(answer)
            except StopIteration as ended:
                return ended.value

        return await self._database.run(overtaken, **options)
