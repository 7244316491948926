"""ADK's session service on a Lapse store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Self, TypeVar

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.events.event import Event
from google.adk.platform.uuid import new_uuid
from google.adk.sessions.base_session_service import (
    BaseSessionService,
    GetSessionConfig,
    ListSessionsResponse,
)
from google.adk.sessions.session import Session

from lapse.adk.acts import append, record_creation
from lapse.adk.context import observed_append, revival_cause, reviving
from lapse.adk.errors import STALE, SessionNotFoundError, StaleSessionError
from lapse.adk.holds import Holds
from lapse.adk.maintenance import maintenance_of
from lapse.adk.private import add_to_session, apply_temporary_state, without_temporary_state
from lapse.adk.shared_state import append_within
from lapse.adk.transitions import AppendLocks, Transitions
from lapse.adk.translation import (
    mark,
    seen,
    session_read,
    sessions_read,
    storable_state,
    window_of,
    written,
)
from lapse.artifacts.sweeper import ArtifactSweeper
from lapse.auth.principals import Role, acting, current_actor, current_deputy, is_foreign
from lapse.core.arguments import check
from lapse.core.background import Work
from lapse.core.documents import StateDelta, check_metadata
from lapse.core.errors import (
    NoSuchSessionError,
    OutdatedSessionError,
    SessionExistsError,
)
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey, can_exist, check_new_key
from lapse.core.lifecycle import Cause, Lifecycle
from lapse.core.messages import UsedBy, UsedByRule
from lapse.core.minutes import DEFAULT_TTL
from lapse.quotas.admission import Admission
from lapse.quotas.rules import Quotas
from lapse.store.database import Database, check_store
from lapse.store.records import Appended, NewEvent, Result, SessionRecord
from lapse.store.sessions import Sessions
from lapse.sweep.maintenance import Maintenance
from lapse.sweep.rules import BrakeOptions
from lapse.sweep.sweeper import Sweeper
from lapse.ttl import Targets
from lapse.ttl.policy import TtlPolicy

T = TypeVar("T")

_ENDING: Final = timedelta(milliseconds=200)
"""How long transitions have to end when the service is closed: a silent store holds nobody up."""


class LapseSessionService(BaseSessionService):
    """Keeps ADK's sessions in a Lapse store: in the lobby until their first message.

    It fulfils the whole contract of ADK's own session services. For ADK an expired session does
    not exist, but a runner that still holds one can append a message, which resurrects it.

    If the present task works for a user (`current_principal`), other users' sessions do not
    exist either, whichever route or tool asks for them.

    Args:
        store: where the sessions are stored. The service opens it at its first use.
        ttl: the TTL of sessions that are created without a TTL of their own.
        feed: where changes are published; by default a new feed.
        sweep: whether to start a sweeper with the first write. Set it in programs that sweep
            nowhere else, neither with `lapse.mount` nor with `lapse sweep --watch`.
        policy: chooses the TTL of sessions that are created without one; replaces `ttl`. It
            must publish to the same feed.
        quotas: the limits on creating sessions and on waiting sessions.
        brakes: the limits above which the sweeper that `sweep` starts stops and waits.
        used_by: whose message makes the sessions used that are created from now on: `anyone`,
            `user`, or by app, such as `anyone,shop=user`. None: anyone's, unless the settings of
            the application that Lapse is mounted in say otherwise.
        beside: other work that starts with the first write and stops when the service is closed.
    """

    def __init__(
        self,
        store: Database,
        *,
        ttl: timedelta = DEFAULT_TTL,
        feed: Feed | None = None,
        sweep: bool = False,
        policy: TtlPolicy | None = None,
        quotas: Quotas = Quotas(),
        brakes: BrakeOptions = BrakeOptions(),
        used_by: UsedByRule | str | None = None,
        beside: Iterable[Work] = (),
    ) -> None:
        check_store(store=store)
        check(
            ttl=(ttl, timedelta),
            feed=(feed, Feed | None),
            sweep=(sweep, bool),
            policy=(policy, TtlPolicy | None),
            quotas=(quotas, Quotas),
            brakes=(brakes, BrakeOptions),
            beside=(beside, Iterable),
        )
        self.store = store
        self.used_by = None if used_by is None else UsedByRule.parse(used_by)
        self._stored = Sessions(store)
        self.feed = feed or Feed()
        self.policy = policy or TtlPolicy(
            store, self.feed, Targets.around(ttl, store.rules.horizon)
        )
        self.admission = Admission(store, quotas)
        self.artifacts: ArtifactSweeper | None = None
        """Deletes what an earlier session of a new session's key has left, before it is used."""
        self._beside = list(beside)
        if sweep:
            sweeper = Sweeper(store, self.feed, brakes=brakes)
            self._beside += [sweeper, self.policy, Maintenance(maintenance_of(store))]
        self._append_locks = AppendLocks()
        self._transitions = Transitions(self.feed)
        self.holds = Holds(store, self._transitions)

    # ADK's contract.

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
        ttl_minutes: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        reuse: bool | None = None,
        ttlMinutes: float | None = None,  # noqa: N803 - ADK passes a request's `options` by name
    ) -> Session:
        """Create a session, which waits for its first message in the lobby.

        With neither id nor state the service may return an unused session of the same user
        instead of creating one.

        Args:
            app_name: the app.
            user_id: whose session it is.
            state: initial state; `app:` and `user:` keys take effect for other sessions at once.
            session_id: the id, at most 128 characters; white space around it is removed. If it is
                None or blank, the service chooses an id.
            ttl_minutes: the session's own TTL, within `TtlPolicy.requested`; decimals allowed.
            metadata: a JSON object of at most 16 KiB, kept with the session's record.
            reuse: whether an unused session may be returned; by default the quotas decide.
            ttlMinutes: the same as `ttl_minutes`.

        Raises:
            AlreadyExistsError: a living session has this key.
            InvalidValueError: (a ValueError) an argument is not valid.
            TooManyCreatesError: (a ValueError) a rate limit of creating sessions is exceeded.
            NoSuchSessionError: the task works for another user than `user_id`.
        """
        chosen = (session_id or "").strip()
        key = check_new_key(SessionKey(app_name, user_id, chosen or new_uuid()))
        if is_foreign(user_id):
            raise _no_such(key)
        minutes = ttl_minutes if ttl_minutes is not None else ttlMinutes
        given = check_metadata({} if metadata is None else metadata)
        kept = {**given, "kind": "canonical-session", "backend_created": not chosen}
        if minutes is None:
            ttl = self.policy.ttl_for(key, given)
        else:
            ttl = self.policy.requested(minutes, field="ttl_minutes")
        delta = storable_state(state or {})
        await record_creation(self.store, key, delta)
        transition = self.admission.create(
            key,
            state=delta,
            ttl=ttl,
            metadata=kept,
            used_by=self._used_by(key),
            reuse=self.admission.may_reuse(reuse) and not (chosen or state),
        )
        try:
            created = await self._create(key, transition)
        except SessionExistsError as error:
            raise AlreadyExistsError(f"Session with id {key.session_id} already exists.") from error
        return await session_read(created.value)

    async def ensure_legacy_session(self, key: SessionKey) -> None:
        """Create a session under a key that the client chose, unless it has a record already.

        A session that lives, or that has expired and can be restored, has a record.

        Raises:
            InvalidValueError: the key is not valid.
            TooManyCreatesError: a rate limit of creating sessions is exceeded.
            NoSuchSessionError: the session would be another user's.
        """
        check_new_key(key)
        if is_foreign(key.user_id):
            raise _no_such(key)
        if await self._stored.lifecycle(key) is not None:
            return
        ttl = self.policy.ttl_for(key, {})
        metadata = {"kind": "legacy-session", "backend_created": False}
        transition = self.admission.create(
            key, state=StateDelta(), ttl=ttl, metadata=metadata, used_by=self._used_by(key)
        )
        # Another request may create the same session at this moment; that one serves as well.
        with suppress(SessionExistsError):
            await self._create(key, transition)

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Return a session, or None if it is unknown or expired."""
        key = await self._stored_key(app_name, user_id, session_id)
        if key is None:
            return None
        window = window_of(config)
        record = await self._stored.read(key, window)
        cause = revival_cause(SessionKey(app_name, user_id, session_id))
        # Again, if it expires between the read and the hold of its run.
        while record is None or not await self.holds.holds(record):
            if cause is None:
                break
            try:
                await self.resurrect(key, cause=cause)
            except NoSuchSessionError:
                await self.policy.refuse(key)
                return None
            record = await self._stored.read(key, window)
            cause = None
        return None if record is None else await session_read(record)

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return the living sessions of a user, or of all users, the most recent one last.

        If the task works for a user, "all users" means that user.
        """
        user_id = current_actor(Role.USER) if user_id is None else user_id
        if not can_exist(SessionKey(app_name, "-" if user_id is None else user_id, "-")):
            return ListSessionsResponse()
        if user_id is None:
            records = await self._stored.list_of_all_users(app_name)
        elif is_foreign(user_id):
            records = []
        else:
            records = await self._stored.list(app_name, user_id)
        return ListSessionsResponse(sessions=await sessions_read(records))

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
                has no room for its `app:` or `user:` state; an agent's is stored without that.
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
        async with self._append_locks.of(key), observed_append(key, event):

            def stored(new: NewEvent) -> Coroutine[Any, Any, Result[Appended]]:
                new = self.admission.within_quotas(new)
                return self._commit("append", key, append(self.store, key, new, seen(session)))

            try:
                appended = (await append_within(key, event, stored)).value
            except NoSuchSessionError as error:
                new = await written(event)
                counts = not new.by_agent or self._used_by(key) is UsedBy.ANYONE
                if new.is_message and counts:
                    await self.policy.refuse(key)
                raise SessionNotFoundError(f"Session {session.id} not found.") from error
            except OutdatedSessionError as error:
                raise StaleSessionError(STALE) from error
            if appended.revision is not None:
                mark(session, appended.revision)
            if appended.repeated and any(held.id == event.id for held in session.events):
                return event
            return add_to_session(self, session, event)

    async def close(self) -> None:
        """Stop the work beside, wait a moment for running transitions, and close the store.

        A transition that takes longer ends with its connection, and whether it was done is unknown.
        """
        await asyncio.gather(*(work.stop() for work in self._beside), self.holds.stop())
        await self._transitions.finish(within=_ENDING)
        await self.store.close()
        await self._transitions.finish(within=_ENDING)

    async def __aenter__(self) -> Self:
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # The life of a session, beyond ADK's contract.

    reviving = staticmethod(reviving)

    async def lifecycle(self, key: SessionKey) -> Lifecycle:
        """Return the record of a session, also of an expired one.

        Raises:
            NoSuchSessionError: the session is unknown or purged.
        """
        stored = await self._stored_key(*key)
        record = None if stored is None else await self._stored.lifecycle(stored)
        if record is None:
            raise _no_such(key)
        return record

    async def amend(
        self,
        key: SessionKey,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
    ) -> Lifecycle:
        """Merge metadata and set a new TTL from now; `Lobby.amend` lists the errors."""
        metadata, by = None if metadata is None else check_metadata(metadata), current_deputy()
        return await self._change(
            "amend", key, lambda kept: self._stored.amend(kept, metadata=metadata, ttl=ttl, by=by)
        )

    async def extend(self, key: SessionKey) -> Lifecycle:
        """Give a waiting session a fresh TTL; `Lobby.extend` lists the errors.

        The audit log records it only for operators: browsers extend often, while users type.
        """
        by = current_actor(Role.OPERATOR)
        return await self._change("extend", key, lambda stored: self._stored.extend(stored, by=by))

    async def resurrect(self, key: SessionKey, *, cause: Cause = Cause.REQUEST) -> Lifecycle:
        """Let an expired session wait again; `Admission.resurrect` lists the errors."""
        by = current_deputy() if cause is Cause.REQUEST else None
        return await self._change(
            "resurrect", key, lambda stored: self.admission.resurrect(stored, cause=cause, by=by)
        )

    async def expire(self, key: SessionKey) -> Lifecycle:
        """Expire a waiting session now; `Lobby.expire` lists the errors."""
        return await self._change(
            "expire", key, lambda stored: self._stored.expire(stored, by=current_deputy())
        )

    def _used_by(self, key: SessionKey) -> UsedBy:
        return (self.used_by or UsedByRule()).of(key.app_name)

    async def _create(
        self, key: SessionKey, transition: Coroutine[Any, Any, Result[SessionRecord]]
    ) -> Result[SessionRecord]:
        created = await self._commit("create", key, transition)
        if created.value.owes_artifacts and self.artifacts is not None:
            await self.artifacts.delete_before(key)
        return created

    async def _change(
        self,
        name: str,
        key: SessionKey,
        transition: Callable[[SessionKey], Coroutine[Any, Any, Result[Lifecycle]]],
    ) -> Lifecycle:
        stored = await self._stored_key(*key)
        if stored is None:
            raise _no_such(key)
        return (await self._commit(name, stored, transition(stored))).value

    async def _commit(
        self, name: str, key: SessionKey, transition: Coroutine[Any, Any, Result[T]]
    ) -> Result[T]:
        """Run a transition to its end; before the first one, start the work beside."""
        if self._beside:
            with acting(None):  # the work beside acts for nobody
                for work in self._beside:
                    await work.start()
        return await self._transitions.run(name, key, transition)

    async def _stored_key(self, app_name: str, user_id: str, session_id: str) -> SessionKey | None:
        """Return the key under which a session is stored: with its id as given, else stripped.

        ADK's DatabaseSessionService stores ids with white space around them as they are. Returns
        None for a key that no session can have, and for another user's session.
        """
        if is_foreign(user_id):
            return None
        key = SessionKey(app_name, user_id, session_id)
        stripped = session_id.strip()
        if stripped != session_id and (
            not can_exist(key) or await self._stored.lifecycle(key) is None
        ):
            key = SessionKey(app_name, user_id, stripped)
        return key if can_exist(key) else None


def _no_such(key: SessionKey) -> NoSuchSessionError:
    return NoSuchSessionError(f"session {key.short}… does not exist")
