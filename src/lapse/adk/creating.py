"""Creating sessions, as ADK's services do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.platform.uuid import new_uuid
from google.adk.sessions.session import Session

from lapse.adk.acts import record_creation
from lapse.adk.keyed_creation import KeyedCreation, current_creation
from lapse.adk.lives import SessionLives
from lapse.adk.translation import session_read, storable_state
from lapse.auth.principals import is_foreign
from lapse.core.documents import StateDelta, check_metadata
from lapse.core.errors import NoSuchSessionError, SessionExistsError, no_such_session
from lapse.core.keys import SessionKey, check_new_key


class SessionCreating(SessionLives):
    """The part of LapseSessionService that creates sessions."""

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
            raise no_such_session(key.named)
        minutes = ttl_minutes if ttl_minutes is not None else ttlMinutes
        given = check_metadata({} if metadata is None else metadata)
        kept = {**given, "kind": "canonical-session", "backend_created": not chosen}
        if minutes is None:
            ttl = self.policy.ttl_for(key, given)
        else:
            given_as = "ttlMinutes" if ttl_minutes is None else "ttl_minutes"
            ttl = self.policy.requested(minutes, field=given_as)
        delta = storable_state(state or {})
        creation = current_creation()
        if creation is not None and (made := await self._made_before(creation, key)) is not None:
            return made
        if chosen:
            await self._check_unused(key)
        await record_creation(self.store, key, delta)
        transition = self.admission.create(
            key,
            state=self._as_kept(delta),
            ttl=ttl,
            metadata=kept,
            used_by=self._used_by(key),
            reuse=self.admission.may_reuse(reuse) and not (chosen or state),
            create=None if creation is None else creation.creating(self.store),
        )
        try:
            created = await self._create(key, transition)
        except SessionExistsError as error:
            raise AlreadyExistsError(f"Session with id {key.session_id} already exists.") from error
        except NoSuchSessionError:
            # Another attempt of the request has made the session meanwhile, and it has gone on.
            made = None if creation is None else await self._made_before(creation, key)
            if made is None:
                raise
            return made
        if creation is not None:
            await creation.made(self.store, key, created.value.key)
        return await session_read(created.value)

    async def _made_before(self, creation: KeyedCreation, key: SessionKey) -> Session | None:
        """Return the session that an earlier request with the same idempotency key has made.

        Raises:
            NoSuchSessionError: it has made one, which has expired or was deleted.
        """
        earlier = await creation.made_before(self.store, key)
        if earlier is None:
            return None
        await self._delete_owed(earlier)
        return await session_read(earlier)

    async def _check_unused(self, key: SessionKey) -> None:
        """Refuse to create a session under an id that is in use outside of the store.

        Raises:
            AlreadyExistsError: it is.
        """

    def _as_kept(self, delta: StateDelta) -> StateDelta:
        """Return the state of a new session as the store keeps it."""
        return delta
