"""The life of sessions beyond ADK's contract: their records, their deadlines, their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Self, TypeVar

from lapse.adk.context import reviving
from lapse.adk.holds import Holds
from lapse.adk.listing import ListedSession, listed_sessions
from lapse.adk.transitions import Transitions
from lapse.artifacts.sweeper import ArtifactSweeper
from lapse.auth.principals import Role, acting, current_actor, current_deputy, is_foreign
from lapse.core.background import Work
from lapse.core.documents import StateDelta, check_metadata
from lapse.core.errors import (
    NotWithThisServiceError,
    SessionExistsError,
    no_such_session,
)
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey, can_exist, check_new_key
from lapse.core.lifecycle import Cause, Lifecycle
from lapse.core.messages import UsedBy, UsedByRule
from lapse.quotas.admission import Admission
from lapse.quotas.rules import Quotas
from lapse.retention.exemptions import ExemptionStore
from lapse.retention.rules import ONLY_OWN
from lapse.store.database import Database
from lapse.store.records import Result, SessionRecord
from lapse.store.sessions import Sessions
from lapse.ttl.policy import TtlPolicy

T = TypeVar("T")

_ENDING: Final = timedelta(milliseconds=200)
"""How long transitions have to end when the service is closed: a silent store holds nobody up."""


class SessionLives:
    """Changes sessions in a store and publishes what changed; the session service is one.

    It is an asynchronous context manager: entering it opens the store, leaving it closes all.

    Args:
        store: where the sessions are stored. It opens at its first use.
        feed: where changes are published.
        policy: chooses the TTL of sessions that are created without one.
        quotas: the limits on creating sessions and on waiting sessions.
        used_by: whose message makes new sessions used; None: anyone's.
        beside: other work that starts with the first write and stops at the end.
    """

    reviving = staticmethod(reviving)

    has_stored_events = True
    """Whether the store has every session that there is."""

    def __init__(
        self,
        store: Database,
        *,
        feed: Feed,
        policy: TtlPolicy,
        quotas: Quotas,
        used_by: UsedByRule | None,
        beside: Iterable[Work],
    ) -> None:
        self.store = store
        self.feed = feed
        self.policy = policy
        self.used_by = used_by
        self.admission = Admission(store, quotas)
        self.artifacts: ArtifactSweeper | None = None
        """Deletes what an earlier session of a new session's key has left, before it is used."""
        self._stored = Sessions(store)
        self._exemptions = ExemptionStore(store)
        self._beside = list(beside)
        self._transitions = Transitions(feed)
        self.holds = Holds(store, self._transitions)

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
            raise no_such_session(key.named)
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

    async def lifecycle(self, key: SessionKey) -> Lifecycle:
        """Return the record of a session, also of an expired one.

        Raises:
            NoSuchSessionError: the session is unknown or purged.
        """
        stored = await self._stored_key(*key)
        record = None if stored is None else await self._stored.lifecycle(stored)
        if record is None:
            raise no_such_session(key.named)
        return record

    async def list_with_lifecycle(
        self, *, app_name: str, user_id: str, status: Collection[str] | None = None
    ) -> list[ListedSession]:
        """Return a user's sessions, each with its record, in the order of ADK's `list_sessions`.

        `status` names the statuses to list, such as `["used", "waiting"]`; without it, they are
        the sessions of `list_sessions`. Of expired sessions it lists those that can be restored,
        at most the 500 most recent.

        Raises:
            InvalidValueError: (a ValueError) there is no such status.
        """
        return await listed_sessions(self.store, app_name, user_id, status)

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

    async def pin(self, key: SessionKey) -> Lifecycle:
        """Exempt a session from retention; `ExemptionStore.pin` lists the errors.

        Raises:
            NotWithThisServiceError: another session service has the used sessions.
        """
        return await self._pinning("pin", key, self._exemptions.pin)

    async def unpin(self, key: SessionKey) -> Lifecycle:
        """Let retention apply to a session again; it raises what `pin` raises."""
        return await self._pinning("unpin", key, self._exemptions.unpin)

    async def _pinning(
        self,
        name: str,
        key: SessionKey,
        transition: Callable[..., Coroutine[Any, Any, Result[Lifecycle]]],
    ) -> Lifecycle:
        if not self.has_stored_events:
            raise NotWithThisServiceError(ONLY_OWN)
        by = current_actor()
        return await self._change(name, key, lambda stored: transition(stored, by=by))

    def _used_by(self, key: SessionKey) -> UsedBy:
        return (self.used_by or UsedByRule()).of(key.app_name)

    async def _create(
        self, key: SessionKey, transition: Coroutine[Any, Any, Result[SessionRecord]]
    ) -> Result[SessionRecord]:
        created = await self._commit("create", key, transition)
        await self._delete_owed(created.value)
        return created

    async def _delete_owed(self, session: SessionRecord) -> None:
        """Delete the artifacts that an earlier session of a new session's key has left."""
        if session.owes_artifacts and self.artifacts is not None:
            await self.artifacts.delete_before(session.key)

    async def _change(
        self,
        name: str,
        key: SessionKey,
        transition: Callable[[SessionKey], Coroutine[Any, Any, Result[Lifecycle]]],
    ) -> Lifecycle:
        stored = await self._stored_key(*key)
        if stored is None:
            raise no_such_session(key.named)
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
