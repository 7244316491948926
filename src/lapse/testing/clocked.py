"""A Lapse in memory whose clock a test moves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

from lapse.core.errors import no_such_session
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Status
from lapse.notices.rules import Known, NoticeKind, greeting, news
from lapse.notices.store import NoticeStore
from lapse.store.sessions import Sessions
from lapse.testing.clock import Clock, ClockedDatabase

if TYPE_CHECKING:
    from lapse.adk.service import LapseSessionService
    from lapse.store.database import Database

_BATCH: Final = 1000


class Session(Protocol):
    """One of ADK's session objects."""

    app_name: str
    user_id: str
    id: str


class ClockedLapse:
    """Sessions in memory, for a user's own tests: nothing waits, and nothing is left afterwards.

    No sweeper runs: `sweep` does what one would have done by the time of the clock.

    Args:
        ttl: the TTL of sessions that are created without a TTL of their own.
        warn_before: how long before its deadline a browser is warned.
        options: what else `LapseSessionService` takes, such as `quotas` and `used_by`.

    Attributes:
        clock: what the service, its store and its browsers go by.
        sessions: the session service, for a Runner.
    """

    def __init__(
        self,
        *,
        ttl: timedelta = timedelta(minutes=30),
        warn_before: timedelta = timedelta(minutes=5),
        **options: Any,
    ) -> None:
        from lapse.adk.service import LapseSessionService  # late, for ADK takes seconds to import
        from lapse.store import store_from_url

        self.clock = Clock()
        store = ClockedDatabase(store_from_url("sqlite:///:memory:"), self.clock)
        self.store = cast("Database", store)
        self.sessions: LapseSessionService = LapseSessionService(self.store, ttl=ttl, **options)
        self._warn_before = warn_before

    async def __aenter__(self) -> Self:
        """Return it; the store opens at its first use."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the service, and forget its sessions."""
        await self.close()

    async def close(self) -> None:
        """Close the service, and forget its sessions."""
        await self.sessions.close()

    async def sweep(self) -> None:
        """Expire every session whose deadline has come, and purge what is no longer restorable."""
        sessions = Sessions(self.store)
        for step in (sessions.expire_due, sessions.purge_due):
            swept = await step(_BATCH)
            while swept.value:
                self.sessions.feed.publish(swept.changes, swept=True)
                swept = await step(_BATCH)

    async def expire(self, session: Session) -> None:
        """Expire one waiting session now, wherever its deadline is.

        Raises:
            NoSuchSessionError: the session is unknown.
            WrongStatusError: the session is used.
        """
        expired = await Sessions(self.store).expire(key_of(session))
        self.sessions.feed.publish(expired.changes)

    async def lifecycle(self, session: Session) -> Lifecycle:
        """Return the record of a session.

        Raises:
            NoSuchSessionError: the session is unknown: never created, deleted, or purged.
        """
        key = key_of(session)
        record = await Sessions(self.store).lifecycle(key)
        if record is None:
            raise no_such_session(key.named)
        return record

    async def assert_status(self, session: Session, status: Status | None) -> None:
        """Fail unless a session has a status; None: unless it is unknown."""
        record = await Sessions(self.store).lifecycle(key_of(session))
        found = None if record is None else record.status
        told = "unknown" if found is None else str(found)
        assert found == status, f"session {key_of(session).short} is {told}, not {status}"

    def browser(self, session: Session) -> Browser:
        """Return a browser that watches a session from now on."""
        return Browser(self.store, key_of(session), self._warn_before)


class Browser:
    """Stands for the page of one session: it is told what a server would tell the page."""

    def __init__(self, store: Database, key: SessionKey, warn_before: timedelta) -> None:
        self._store, self._key, self._warn_before = NoticeStore(store), key, warn_before
        self._known: Known | None = None
        self._is_over = False

    async def notices(self) -> Sequence[NoticeKind]:
        """Return the kinds of the notices since the last call, in order; the record is the first.

        A browser is told what matters now: of an expiry and a restore it hears the restore only.
        """
        if self._is_over:
            return []
        read = await self._store.records((self._key,))
        record = read.records.get(self._key)
        if record is None:
            self._is_over = True
            return [NoticeKind.DELETED]
        if self._known is None:
            told = greeting(None, record, read.at, self._warn_before)
        else:
            told = news(self._known, record, read.at, self._warn_before)
        if told:
            self._known = told[-1].known
        return [notice.kind for notice in told]

    async def assert_notices(self, *expected: NoticeKind | str) -> None:
        """Fail unless exactly these notices came since the last call, in this order."""
        told = [str(kind) for kind in await self.notices()]
        assert told == [str(kind) for kind in expected], (
            f"session {self._key.short}: the browser was told {told}, not {[*map(str, expected)]}"
        )


def key_of(session: Session) -> SessionKey:
    """Return the key of a session."""
    return SessionKey(session.app_name, session.user_id, session.id)
