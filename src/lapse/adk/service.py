"""ADK's session service on a Lapse store."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import (
    BaseSessionService,
    GetSessionConfig,
    ListSessionsResponse,
)
from google.adk.sessions.session import Session

from lapse.adk.acts import append
from lapse.adk.context import observed_append, revival_cause
from lapse.adk.creating import SessionCreating
from lapse.adk.errors import STALE, SessionNotFoundError, StaleSessionError
from lapse.adk.maintenance import maintenance_of
from lapse.adk.private.look_ups import is_look_before_a_run
from lapse.adk.private.sessions import (
    add_to_session,
    apply_temporary_state,
    without_temporary_state,
)
from lapse.adk.shared_state import append_within
from lapse.adk.translation import (
    event_in,
    mark,
    seen,
    session_read,
    sessions_read,
    window_of,
    written,
)
from lapse.auth.principals import Role, current_actor, is_foreign
from lapse.core.arguments import check
from lapse.core.background import Work
from lapse.core.errors import (
    EventIdTakenError,
    NoSuchSessionError,
    OutdatedSessionError,
    StoreUnavailableError,
)
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey, can_exist
from lapse.core.lifecycle import Cause
from lapse.core.loops import SessionLocks
from lapse.core.messages import UsedBy, UsedByRule
from lapse.core.minutes import DEFAULT_TTL
from lapse.quotas.rules import Quotas
from lapse.retention.hooks import RetentionHooks
from lapse.store.database import Database, check_store
from lapse.store.records import Appended, EventWindow, NewEvent, Result, SessionRecord
from lapse.sweep.maintenance import Maintenance
from lapse.sweep.rules import BrakeOptions
from lapse.sweep.sweeper import Sweeper
from lapse.ttl import Policy, Targets
from lapse.ttl.policy import TtlPolicy

_READS_BEFORE_A_RUN: Final = 4
"""How often a look-up reads a session that expires again before its run can begin."""


class LapseSessionService(SessionCreating, BaseSessionService):
    """Keeps ADK's sessions in a Lapse store: in the lobby until their first message.

    It fulfils the whole contract of ADK's own session services. For ADK an expired session does
    not exist, until a runner looks for it or appends a message to it: that resurrects it.

    If the present task works for a user (`current_principal`), other users' sessions do not
    exist either, whichever route or tool asks for them.

    Args:
        store: where the sessions are stored. The service opens it at its first use.
        ttl: the TTL of sessions that are created without a TTL of their own; by default 30 minutes.
        feed: where changes are published; by default a new feed.
        sweep: whether to start a sweeper with the first write. Set it in programs that sweep
            nowhere else, neither with `lapse.mount` nor with `lapse sweep --watch`.
        policy: chooses the TTL of sessions that are created without one; replaces `ttl`. It
            must publish to the same feed.
        quotas: the limits on creating sessions and on waiting sessions; by default none.
        brakes: the limits above which the sweeper that `sweep` starts stops and waits.
        used_by: whose message makes the sessions used that are created from now on: `anyone`,
            `user`, or by app, such as `anyone,shop=user`. None: anyone's, unless the settings of
            the application that Lapse is mounted in say otherwise.
        retention_hooks: what is awaited when a retention policy archives or purges a session, in an
            application that Lapse is mounted in; by default as its settings say.
        beside: other work that starts with the first write and stops when the service is closed.

    In an application that Lapse is mounted in, its settings replace the defaults of `ttl`, `policy`
    and `quotas`.
    """

    finishing: Sequence[Work] = ()
    """The work that finishes hand-overs and deletions that a process has left unfinished."""

    @property
    def conversations(self) -> BaseSessionService | None:
        """Return the other service in which used sessions live; None: ADK's tables have them."""
        return None

    def __init__(
        self,
        store: Database,
        *,
        ttl: timedelta | None = None,
        feed: Feed | None = None,
        sweep: bool = False,
        policy: TtlPolicy | None = None,
        quotas: Quotas | None = None,
        brakes: BrakeOptions = BrakeOptions(),
        used_by: UsedByRule | str | None = None,
        retention_hooks: RetentionHooks | None = None,
        beside: Iterable[Work] = (),
    ) -> None:
        check_store(store=store)
        check(
            ttl=(DEFAULT_TTL if ttl is None else ttl, timedelta),
            feed=(feed, Feed | None),
            sweep=(sweep, bool),
            policy=(policy, TtlPolicy | None),
            quotas=(quotas, Quotas | None),
            brakes=(brakes, BrakeOptions),
            retention_hooks=(retention_hooks, RetentionHooks | None),
            beside=(beside, Iterable),
        )
        self.retention_hooks = retention_hooks
        feed = feed or Feed()
        self._ttl, self._has_policy, self._has_quotas = ttl, policy is not None, quotas is not None
        policy = policy or TtlPolicy(
            store, feed, Targets.around(ttl or DEFAULT_TTL, store.rules.horizon)
        )
        works = list(beside)
        if sweep:
            sweeper = Sweeper(store, feed, brakes=brakes)
            works += [
                sweeper,
                policy,
                Maintenance(maintenance_of(store, converses=not self.has_stored_events)),
            ]
        super().__init__(
            store,
            feed=feed,
            policy=policy,
            quotas=quotas or Quotas(),
            used_by=None if used_by is None else UsedByRule.parse(used_by),
            beside=works,
        )
        self._append_locks = SessionLocks()

    def default_to(self, targets: Targets, mode: Policy, quotas: Quotas) -> None:
        """Use these targets, mode and quotas, unless the constructor was given its own."""
        if not self._has_policy:
            if self._ttl is not None:
                targets, mode = Targets.around(self._ttl, self.store.rules.horizon), Policy.FIXED
            self.policy = TtlPolicy(self.store, self.feed, targets, mode)
        if not self._has_quotas:
            self.admission.quotas = quotas

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Return a session, or None if it is unknown or expired.

        An expired session that is still restorable is resurrected, if ADK is about to run an agent
        on it (`is_look_before_a_run`; that counts like a request, within the quotas), or if the
        block around the call says so (`reviving`).

        Raises:
            TooManyCreatesError: (a ValueError) a rate limit refuses the resurrection.
            StoreUnavailableError: the session expired again each time before the run could begin.
        """
        record = await self.stored_session(
            SessionKey(app_name, user_id, session_id), window_of(config)
        )
        return None if record is None else await session_read(record)

    async def stored_session(
        self, asked: SessionKey, window: EventWindow = EventWindow()
    ) -> SessionRecord | None:
        """Return what `get_session` returns, as it is stored; it raises the same errors."""
        key = await self._stored_key(*asked)
        if key is None:
            return None
        for reads in range(1, _READS_BEFORE_A_RUN + 1):
            record = await self._stored.read(key, window)
            if record is not None and await self.holds.holds(record):
                return record
            # It is expired, or expired between the read and the hold of its run.
            cause = revival_cause(asked)
            if cause is None and is_look_before_a_run():
                cause = Cause.REQUEST
            if cause is None:
                return record
            if reads < _READS_BEFORE_A_RUN and not await self._revive(key, cause):
                return None
        raise StoreUnavailableError(
            f"session {key.named} expired {_READS_BEFORE_A_RUN} times before its run could begin; "
            "try again in a moment, or give it a longer TTL"
        )

    async def _revive(self, key: SessionKey, cause: Cause) -> bool:
        """Resurrect a session before a run; return False if there is nothing to resurrect."""
        try:
            await self.resurrect(key, cause=cause)
        except NoSuchSessionError:
            await self.policy.refuse(key)
            return False
        return True

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return the living sessions of a user, or of all users, the most recent one last.

        If the task works for a user, "all users" means that user.
        """
        records = await self.stored_list(app_name, user_id)
        return ListSessionsResponse(sessions=await sessions_read(records))

    async def stored_list(self, app_name: str, user_id: str | None) -> Sequence[SessionRecord]:
        """Return what `list_sessions` answers with, as stored."""
        user_id = current_actor(Role.USER) if user_id is None else user_id
        if not can_exist(SessionKey(app_name, "-" if user_id is None else user_id, "-")):
            return []
        if user_id is None:
            return await self._stored.list_of_all_users(app_name)
        if is_foreign(user_id):
            return []
        return await self._stored.list(app_name, user_id)

    async def delete_session(self, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session, living or expired; a no-op if there is none."""
        key = await self._stored_key(app_name, user_id, session_id)
        if key is not None:
            await self._commit("delete", key, self._stored.delete(key, by=current_actor()))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return a user's state; its keys have no `user:` prefix."""
        if is_foreign(user_id) or not can_exist(SessionKey(app_name, user_id, "-")):
            return {}
        return await self._stored.user_state(app_name, user_id)

    async def append_event(self, session: Session, event: Event) -> Event:
        """Append an event to the stored session, durably, and then to the object `session`.

        The first message makes the session used, for good. An event that is appended twice is
        stored once. Appends to one session run one after another.

        Raises:
            SessionNotFoundError: the session does not exist any more.
            StaleSessionError: the stored session has changed since `session` was read.
            InvalidValueError: (a ValueError) the event cannot be stored, or it is the user's and
                has no room for its `app:` or `user:` state; an agent's is stored without that, and
                with U+FFFD or null for what no store can hold.
            HeldEventsFullError: a quota limits waiting sessions, and the event would make this one
                used without a message.
        """
        if event.partial:
            return event
        apply_temporary_state(self, session, event)
        event = without_temporary_state(self, event)
        key = SessionKey(session.app_name, session.user_id, session.id)
        if is_foreign(key.user_id) or not can_exist(key):
            raise SessionNotFoundError(f"Session {session.id} not found.")
        async with self._append_locks.of(key), observed_append(key, event) as is_repeat:
            if is_repeat and (held := event_in(session, event.id)) is not None:
                return held

            return await self._appended_and_noted(key, session, event, is_repeat=is_repeat)

    async def _appended_and_noted(
        self, key: SessionKey, session: Session, event: Event, *, is_repeat: bool
    ) -> Event:
        """Append an event to the stored session, and then to the object."""
        appending = self._appended(key, session, event, is_repeat=is_repeat)
        return await self._transitions.noted(appending, partial(self._noted, session, event))

    def _noted(self, session: Session, event: Event, appended: Appended) -> Event:
        if appended.revision is not None:
            mark(session, appended.revision)
        if appended.repeated and event_in(session, event.id) is not None:
            return event
        return add_to_session(self, session, event)

    async def _appended(
        self, key: SessionKey, session: Session, event: Event, *, is_repeat: bool
    ) -> Appended:
        """Append an event to the stored session; `is_repeat`: it may be stored already."""

        def stored(new: NewEvent) -> Coroutine[Any, Any, Result[Appended]]:
            new = self.admission.within_quotas(new)
            return self._commit("append", key, append(self.store, key, new, seen(session)))

        try:
            return (await append_within(session, event, stored)).value
        except NoSuchSessionError as error:
            new = await written(event)
            counts = not new.by_agent or self._used_by(key) is UsedBy.ANYONE
            if new.is_message and counts:
                await self.policy.refuse(key)
            raise SessionNotFoundError(f"Session {session.id} not found.") from error
        except OutdatedSessionError as error:
            raise StaleSessionError(STALE) from error
        except EventIdTakenError as error:
            if not is_repeat:
                raise
            # Another attempt of the same request has stored it since the session was read.
            raise StaleSessionError(STALE) from error
