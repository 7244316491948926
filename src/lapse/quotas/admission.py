"""Sessions that come to wait within quotas: the rate limits before, the waiting quotas after."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from lapse.auth.addresses import current_site
from lapse.auth.principals import Role, current_actor, current_deputy, current_principal
from lapse.core.documents import StateDelta
from lapse.core.errors import InvalidValueError, StoreUnavailableError, TooManyCreatesError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Change, Lifecycle, Status
from lapse.core.messages import UsedBy
from lapse.quotas.rules import Bucket, Draw, Drawer, Quotas
from lapse.quotas.store import QuotaStore
from lapse.store.database import Database
from lapse.store.records import EventWindow, NewEvent, Result, SessionRecord
from lapse.store.sessions import Sessions

_MOST_REMEMBERED: Final = 10_000
"""The maximum of empty buckets that a process remembers, to refuse creations without the store."""

_MOST_HOLDING: Final = 3
"""After so many waiting sessions that turn out to hold artifacts, a new session is created."""

_WHO: Final = {
    Drawer.USER: "this user has",
    Drawer.ADDRESS: "this address has",
    Drawer.ALL: "all users together have",
}

_log = logging.getLogger(__name__)


class Admission:
    """Creates and resurrects sessions in a store, within quotas.

    A resurrection on request counts as a creation: either makes a session wait. What a user asks
    for also counts for the address that it comes from; what a service asks for does not, because a
    service acts for many users. What an operator resurrects counts for nobody.

    Attributes:
        quotas: what is allowed.
        refused: how many creations and resurrections this process has refused, by whose limit.
        exceeded: how many sessions this process has expired because of a quota.
        reused: how many creations returned a waiting session that existed already.
        on_counts: what is called after each of these counts; none may fail.
        holds_artifacts: tells whether a session has artifacts that no request has saved, and
            records it if so; None: nobody can tell.
    """

    def __init__(self, database: Database, quotas: Quotas) -> None:
        self.quotas = quotas
        self.refused: Counter[Drawer] = Counter()
        self.exceeded = 0
        self.reused = 0
        self.on_counts: list[Callable[[], None]] = []
        self.holds_artifacts: Callable[[SessionKey], Awaitable[bool]] | None = None
        self._sessions = Sessions(database)
        self._store = QuotaStore(database)
        self._empty_until: OrderedDict[str, float] = OrderedDict()

    async def create(
        self,
        key: SessionKey,
        *,
        state: StateDelta,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        used_by: UsedBy = UsedBy.ANYONE,
        reuse: bool = False,
        create: Callable[..., Awaitable[Result[SessionRecord]]] | None = None,
    ) -> Result[SessionRecord]:
        """Create a session, and expire the waiting sessions that then exceed a quota.

        `Lobby.create` describes the arguments. With `reuse`, return a waiting session of the key's
        user instead, if there is one that is as good as a new one. `create` takes the place of
        `Lobby.create`.

        Raises:
            TooManyCreatesError: too many sessions were created lately.
            SessionExistsError: a session of this key lives.
        """
        extended: list[Change] = []
        if reuse:
            session = await self._reused(key, ttl, metadata, used_by, extended)
            if session is not None:
                return Result(session, extended)
        site = _site()
        await self._draw(key, site)
        created = await (create or self._sessions.create)(
            key, state=state, ttl=ttl, metadata=metadata, site=site, used_by=used_by
        )
        expired = await self._expire_excess(key, site)
        return Result(created.value, (*extended, *created.changes, *expired))

    async def resurrect(
        self, key: SessionKey, *, cause: Cause, by: str | None = None
    ) -> Result[Lifecycle]:
        """Resurrect a session, and expire the waiting sessions that then exceed a quota.

        `Lobby.resurrect` describes the arguments; a session that lives is left as it is, and counts
        for nothing. No rate limit refuses a run, which brings a message, and its session may exceed
        the quota by one, because the message is about to make it used.

        Raises:
            TooManyCreatesError: too many sessions were created or resurrected lately.
            NoSuchSessionError: the session is unknown or no longer restorable.
        """
        if not self.quotas.limited or current_actor(Role.OPERATOR) is not None:
            return await self._sessions.resurrect(key, cause=cause, by=by)
        site, is_asked_for = _site(), cause is Cause.REQUEST
        if is_asked_for:
            before = await self._sessions.lifecycle(key)
            if before is not None and before.status is Status.EXPIRED:
                await self._draw(key, site)
        back = await self._sessions.resurrect(key, cause=cause, by=by)
        if not back.changes:
            return back
        expired = await self._expire_excess(key, site, spare=0 if is_asked_for else 1)
        return Result(back.value, (*back.changes, *expired))

    def within_quotas(self, event: NewEvent) -> NewEvent:
        """Return an event that makes no session used without a message, where a quota applies.

        A session that is used is kept for good and counts for no quota. Services and operators may
        do that.
        """
        quotas = self.quotas
        limited = quotas.waiting_per_user is not None or quotas.waiting_per_address is not None
        if event.is_message or not limited or current_deputy() is not None:
            return event
        return replace(event, may_use=False)

    def may_reuse(self, wish: object) -> bool:
        """Return whether a creation may return a waiting session; without a wish the quotas say it.

        Raises:
            InvalidValueError: the wish is neither a boolean nor None.
        """
        if wish is None:
            return self.quotas.reuse
        if not isinstance(wish, bool):
            raise InvalidValueError("reuse", f"must be true or false, not {wish!r:.40}")
        return wish

    async def _reused(
        self,
        key: SessionKey,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        used_by: UsedBy,
        extended: list[Change],
    ) -> SessionRecord | None:
        """Return a session that is as good as a new one, if any; add the changes to `extended`."""
        for _ in range(_MOST_HOLDING):
            found = await self._store.reuse_waiting(
                key, ttl=ttl, metadata=metadata, used_by=used_by
            )
            extended += found.changes
            if found.value is None:
                return None
            if self.holds_artifacts is not None and await self.holds_artifacts(found.value):
                continue
            session = await self._sessions.read(found.value, EventWindow(newest=0))
            self.reused += session is not None
            for hear in self.on_counts:
                hear()
            return session
        return None

    async def _draw(self, key: SessionKey, site: str | None) -> None:
        buckets = self.quotas.buckets(key.user_id, site)
        if not buckets:
            return
        draw = self._known_refusal(buckets)
        if draw is None:
            draw = await self._store.draw(buckets)
        if not draw.wait:
            return
        self._remember(draw)
        (bucket,) = (bucket for bucket in buckets if bucket.name == draw.bucket)
        self.refused[bucket.drawer] += 1
        for hear in self.on_counts:
            hear()
        wait = draw.wait.total_seconds()
        raise TooManyCreatesError(
            f"{_WHO[bucket.drawer]} created or resurrected as many sessions as are allowed for "
            f"now, {bucket.per_span} a minute; try again in {max(1, math.ceil(wait))} s",
            retry_after=draw.wait,
        )

    def _known_refusal(self, buckets: Sequence[Bucket]) -> Draw | None:
        """Return an earlier refusal of the store for a bucket that is still empty, if any."""
        now = time.monotonic()
        for bucket in buckets:
            left = self._empty_until.get(bucket.name, now) - now
            if left > 0:
                return Draw(timedelta(seconds=left), bucket.name)
        return None

    def _remember(self, draw: Draw) -> None:
        self._empty_until[draw.bucket] = time.monotonic() + draw.wait.total_seconds()
        self._empty_until.move_to_end(draw.bucket)
        if len(self._empty_until) > _MOST_REMEMBERED:
            self._empty_until.popitem(last=False)

    async def _expire_excess(
        self, key: SessionKey, site: str | None, *, spare: int = 0
    ) -> Sequence[Change]:
        quotas = self.quotas
        per_user = None if quotas.waiting_per_user is None else quotas.waiting_per_user + spare
        per_site = (
            None if quotas.waiting_per_address is None else quotas.waiting_per_address + spare
        )
        if per_user is None and (per_site is None or site is None):
            return ()
        try:
            expired = await self._store.expire_excess(
                key, site=site, per_user=per_user, per_site=per_site
            )
        except StoreUnavailableError as error:
            # The session waits; the user's next creation expires the excess.
            _log.warning("what exceeds a quota could not be expired: %s", error)
            return ()
        self.exceeded += expired.value
        for hear in self.on_counts:
            hear()
        return expired.changes


def _site() -> str | None:
    principal = current_principal()
    if principal is not None and principal.role is not Role.USER:
        return None
    return current_site()
