"""Lapse's session service with conversations in another session service.

The lobby is Lapse's; a session's first message hands it over (`lapse.conversations`). From then on
the other service answers for it, with its own rules.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.sessions.base_session_service import (
    BaseSessionService,
    GetSessionConfig,
    ListSessionsResponse,
)
from google.adk.sessions.session import Session

from lapse.adk.conversing_appends import ConversingAppends
from lapse.adk.conversing_lists import differ, merged, record_of_old, with_records
from lapse.adk.elsewhere import Elsewhere
from lapse.adk.keyed_creation import KeyedCreation
from lapse.adk.listing import ListedSession
from lapse.adk.private.services import flush
from lapse.adk.translation import sessions_read
from lapse.auth.principals import Role, current_actor, is_foreign
from lapse.conversations.finisher import Finisher
from lapse.conversations.handover import HandOvers
from lapse.conversations.places import ListedPlace
from lapse.conversations.rules import Bounds, Place, Where
from lapse.core.arguments import check
from lapse.core.errors import NoSuchSessionError
from lapse.core.keys import SessionKey, can_exist
from lapse.core.lifecycle import Lifecycle
from lapse.store.database import Database
from lapse.store.records import SessionRecord

_REMEMBERED: Final = 10_000
"""How many used sessions a process remembers to be used, so that it need not look."""


class ConversingSessionService(ConversingAppends):
    """Keeps waiting sessions in a Lapse store, and used ones in another of ADK's services.

    A session of the other service that Lapse has no record of is an old conversation: it is read,
    listed, appended to and deleted there, and nobody can create another of its id. App and user
    state that is given to a waiting session takes effect with its first message.

    Args:
        store: where the lobby is.
        conversations: the other service; it is closed with this one, if it can be.
        bounds: how long its calls may take.
        options: those of LapseSessionService.
    """

    has_stored_events = False

    def __init__(
        self,
        store: Database,
        conversations: BaseSessionService,
        *,
        bounds: Bounds = Bounds(),
        **options: Any,
    ) -> None:
        check(conversations=(conversations, BaseSessionService), bounds=(bounds, Bounds))
        self._elsewhere = Elsewhere(conversations, bounds)
        self._used: dict[SessionKey, Place] = {}
        super().__init__(store, **options)
        self.hand_overs = HandOvers(
            store,
            self._elsewhere,
            bounds=bounds,
            run=self._transitions.run,
            publish=self.feed.publish,
            on_left=lambda: self._finisher.wake(bounds.lease),
        )
        self._finisher = Finisher(self.hand_overs)
        self._beside.append(self._finisher)
        self.finishing = (self._finisher,)

    @property
    def conversations(self) -> BaseSessionService:
        """Return the other service."""
        return self._elsewhere.service

    async def close(self) -> None:
        """Close as LapseSessionService does, and then the other service."""
        await super().close()
        await self._elsewhere.close()

    async def flush(self) -> None:
        """Flush the other service."""
        await flush(self._elsewhere.service)

    async def _check_unused(self, key: SessionKey) -> None:
        """Ask the other service, too: it may have an old conversation of this id."""
        # One that is being deleted has the key until it is removed.
        place = await self.hand_overs.settled(key)
        if place.where is Where.NOWHERE and await self._is_old(key):
            raise AlreadyExistsError(f"Session with id {key.session_id} already exists.")

    async def _made_before(self, creation: KeyedCreation, key: SessionKey) -> Session | None:
        """Find also the session that the other service has by now."""
        try:
            return await super()._made_before(creation, key)
        except NoSuchSessionError:
            made = await creation.handed_over(self.store, key)
            found = None if made is None else await self.get_session(**made._asdict())
            if found is None:
                raise
            return found

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Return a session, from the lobby or from the other service; None if there is none.

        Raises:
            OnItsWayError: another process hands it over at this moment.
        """
        if is_foreign(user_id):
            return None
        asked = SessionKey(app_name, user_id, session_id)
        if (used := self._used.get(asked)) is not None:
            # Once there, a session is nowhere else until it is deleted.
            found = await self._elsewhere.get(asked, used.service_id, config)
            if found is not None:
                return found
            self._used.pop(asked, None)
        while True:
            key, place = await self._found(asked)
            if place.where is Where.DELETING:
                return None
            if place.where not in {Where.LOBBY, Where.HERE}:
                if place.where is Where.ELSEWHERE:
                    self._remember(key, place)
                return await self._elsewhere.get(key, place.service_id, config)
            found = await super().get_session(
                app_name=app_name, user_id=user_id, session_id=session_id, config=config
            )
            if found is not None:
                return found
            # It may have been handed over since: then it must not seem to be gone.
            if (await self.hand_overs.store.place(key)).where is place.where:
                return None

    def _remember(self, key: SessionKey, place: Place) -> None:
        """Remember that a session is used; its next reader need not ask the lobby."""
        if len(self._used) >= _REMEMBERED:
            self._used.pop(next(iter(self._used)))
        self._used[key] = place

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return the waiting sessions and those of the other service, the most recent one last."""
        user_id = current_actor(Role.USER) if user_id is None else user_id
        if user_id is not None and is_foreign(user_id):
            return ListSessionsResponse()
        store = self.hand_overs.store
        own: Sequence[SessionRecord] = ()
        places: Sequence[ListedPlace] = ()
        if can_exist(SessionKey(app_name, user_id or "-", "-")):
            own, places = await store.lobby(app_name, user_id)
        theirs = await self._elsewhere.list(app_name, user_id)
        if differ(theirs, places):
            # What the lobby has told may be over: a session must not be missing from both.
            places = await store.places(app_name, user_id)
        return ListSessionsResponse(sessions=merged(await sessions_read(own), theirs, places))

    async def list_with_lifecycle(
        self, *, app_name: str, user_id: str, status: Collection[str] | None = None
    ) -> list[ListedSession]:
        """Return a user's sessions with their records, as LapseSessionService does.

        An old conversation reads as used.
        """
        asked = {"app_name": app_name, "user_id": user_id}
        own = await super().list_with_lifecycle(**asked, status=status)
        if is_foreign(user_id) or not can_exist(SessionKey(app_name, user_id, "-")):
            return own
        here = own if status is None else await super().list_with_lifecycle(**asked)
        listed = (await self.list_sessions(**asked)).sessions
        at, records = await self.hand_overs.store.records(app_name, user_id)
        return with_records(own, here=here, listed=listed, records=records, at=at, status=status)

    async def delete_session(self, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session in the lobby and in the other service; a no-op if there is none."""
        if is_foreign(user_id):
            return
        key, place = await self._found(SessionKey(app_name, user_id, session_id))
        if not can_exist(key):
            await self._elsewhere.remove(key, None)
            return
        self._used.pop(key, None)
        if place.where is not Where.HERE:
            async with self._append_locks.of(key):
                deleting = self.hand_overs.delete(key, by=current_actor())
                if (await self._commit("delete", key, deleting)).value:
                    return
        await super().delete_session(app_name, user_id, session_id)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return a user's state in the other service."""
        return {} if is_foreign(user_id) else await self._elsewhere.user_state(app_name, user_id)

    async def lifecycle(self, key: SessionKey) -> Lifecycle:
        """Return the record of a session; an old conversation has one without a deadline."""
        try:
            return await super().lifecycle(key)
        except NoSuchSessionError:
            if is_foreign(key.user_id):
                raise
            old = await self._elsewhere.get(key, None, None)
            if old is None or (await self.hand_overs.store.place(key)).where is not Where.NOWHERE:
                raise
            return record_of_old(key, old)

    async def ensure_legacy_session(self, key: SessionKey) -> None:
        """Create a session under a key that the client chose, unless there is one."""
        if not is_foreign(key.user_id) and can_exist(key):
            place = await self.hand_overs.settled(key)
            if place.where is Where.NOWHERE and await self._is_old(key):
                return
        await super().ensure_legacy_session(key)
