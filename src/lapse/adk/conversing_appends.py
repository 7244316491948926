"""Appending to sessions of which a lobby holds some, and another session service the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session

from lapse.adk.acts import record_append
from lapse.adk.context import observed_append
from lapse.adk.elsewhere import Elsewhere
from lapse.adk.errors import STALE, SessionNotFoundError, StaleSessionError
from lapse.adk.private.sessions import (
    add_to_session,
    apply_temporary_state,
    without_temporary_state,
)
from lapse.adk.service import LapseSessionService
from lapse.adk.translation import copy_version, event_in, seen, written
from lapse.adk.unstorable import written_storable
from lapse.auth.principals import current_deputy, is_foreign
from lapse.conversations.handover import HandOvers
from lapse.conversations.rules import MARK, Place, Where
from lapse.conversations.service import RefusedError, ServiceSession
from lapse.core.documents import StateDelta, merge_state
from lapse.core.errors import EventIdTakenError, NoSuchSessionError, OutdatedSessionError
from lapse.core.keys import SessionKey, can_exist
from lapse.core.messages import UsedBy
from lapse.store.records import Appended, LastSeen, NewEvent, Revision

_NOWHERE: Final = Place(Where.NOWHERE)
_EXISTENCE: Final = GetSessionConfig(num_recent_events=0)


class ConversingAppends(LapseSessionService):
    """The part of ConversingSessionService that appends events, and finds where a session is."""

    hand_overs: HandOvers
    _elsewhere: Elsewhere

    async def _found(self, asked: SessionKey) -> tuple[SessionKey, Place]:
        """Return where a session is, and the key of its record: with its id as given, or stripped.

        It is DELETING if another process removes it: then it does not exist any more.

        Raises:
            OnItsWayError: another process is at work on it.
        """
        for session_id in dict.fromkeys((asked.session_id, asked.session_id.strip())):
            key = asked._replace(session_id=session_id)
            if can_exist(key):
                place = await self.hand_overs.settled(key, for_reader=True)
                if place.where is not Where.NOWHERE:
                    return key, place
        return asked, _NOWHERE

    async def _is_old(self, key: SessionKey) -> bool:
        return await self._elsewhere.get(key, None, _EXISTENCE) is not None

    def _as_kept(self, delta: StateDelta) -> StateDelta:
        """Return state as the lobby keeps it: a waiting session has all of its state itself."""
        return StateDelta(session=merge_state(delta.session, delta.app, delta.user))

    async def append_event(self, session: Session, event: Event) -> Event:
        """Append an event to the stored session, and then to the object `session`.

        The first message hands the session over. A used session is appended to as the other service
        does it.

        Raises:
            SessionNotFoundError: the session does not exist any more.
            StaleSessionError: the stored session has changed since `session` was read.
            OutcomeUnknownError: the other service does not answer; a first message is kept, and is
                stored there later.
        """
        if event.partial:
            return event
        asked = SessionKey(session.app_name, session.user_id, session.id)
        if is_foreign(asked.user_id):
            raise SessionNotFoundError(f"Session {session.id} not found.")
        async with self._append_locks.of(asked), observed_append(asked, event) as is_repeat:
            if is_repeat and (held := event_in(session, event.id)) is not None:
                return held
            try:
                return await self._appended_anywhere(asked, session, event, is_repeat=is_repeat)
            except EventIdTakenError as error:
                if not is_repeat:
                    raise
                raise StaleSessionError(STALE) from error

    async def _appended_anywhere(
        self, asked: SessionKey, session: Session, event: Event, *, is_repeat: bool
    ) -> Event:
        version = seen(session)
        if _is_of_lobby(version) and can_exist(asked):
            # Most sessions with such a version wait: nobody has to ask first where they are.
            appended = await self._append_waiting(asked, session, event, version)
            if appended is not None:
                return appended
        key, place = await self._found(asked)
        match place.where:
            case Where.HERE:
                return await self._append_here(key, session, event, is_repeat=is_repeat)
            case Where.LOBBY:
                appended = await self._append_waiting(key, session, event, version)
                return appended or await self._refused(key, session, event, version)
            case _:
                return await self._append_used(key, place, session, event, version)

    async def _append_here(
        self, key: SessionKey, session: Session, event: Event, *, is_repeat: bool
    ) -> Event:
        """Append to a session that ADK's tables in this store hold."""
        apply_temporary_state(self, session, event)
        event = without_temporary_state(self, event)
        return await self._appended_and_noted(key, session, event, is_repeat=is_repeat)

    async def _append_waiting(
        self, key: SessionKey, session: Session, event: Event, version: Revision | LastSeen
    ) -> Event | None:
        """Hold an event in the lobby, or hand the session over; None: it does not wait so."""
        new = await self._written(session, event)
        if new.is_message:
            # Where only the user's message is use, the agent's is held.
            made = await self._handed_over(key, new, version, counts=not new.by_agent)
            if made is not None or not new.by_agent:
                return None if made is None else self._as_left(session, event, made)
        held = (
            await self._commit("append", key, self.hand_overs.store.hold(key, new, version))
        ).value
        if isinstance(held, Appended):
            await record_append(self.store, key, new)
            return self._noted(session, event, held)
        made = await self._handed_over(key, new, version, counts=True) if held else None
        return None if made is None else self._as_left(session, event, made)

    async def _written(self, session: Session, event: Event) -> NewEvent:
        apply_temporary_state(self, session, event)
        without_temporary_state(self, event)
        new = self.admission.within_quotas(await written_storable(session, event))
        return replace(new, delta=self._as_kept(new.delta))

    async def _handed_over(
        self, key: SessionKey, new: NewEvent, version: Revision | LastSeen, *, counts: bool
    ) -> ServiceSession | None:
        handing = self.hand_overs.first_message(key, new, version, counts=counts)
        try:
            made = (await self._commit("append", key, handing)).value
        except RefusedError as refusal:
            raise refusal.error from None
        except NoSuchSessionError as error:
            raise SessionNotFoundError(f"Session {key.session_id} not found.") from error
        if made is not None:
            await record_append(self.store, key, new)
        return made

    def _as_left(self, session: Session, event: Event, made: ServiceSession) -> Event:
        """Leave the caller's session as the other service would have left it."""
        assert isinstance(made, Session)
        session.state.update({name: value for name, value in made.state.items() if name != MARK})
        if made.events and made.events[-1].id == event.id:
            # Else others have gone on since, and this copy is older than what they have stored.
            copy_version(made, session)
        return add_to_session(self, session, event)

    async def _append_used(
        self,
        key: SessionKey,
        place: Place,
        session: Session,
        event: Event,
        version: Revision | LastSeen,
    ) -> Event:
        """Append to a session of the other service, by its rules."""
        is_gone = place.where is Where.DELETING
        if is_gone or (place.where is Where.NOWHERE and not await self._is_old(key)):
            raise SessionNotFoundError(f"Session {session.id} not found.")
        if _is_of_lobby(version):
            # It was read from the lobby, and has been handed over since. A repeat finds its event.
            stored = await self._elsewhere.get(key, place.service_id, None)
            if stored is None or not stored.events or stored.events[-1].id != event.id:
                raise StaleSessionError(STALE)
            return self._as_left(session, event, stored)
        appended = await self._elsewhere.append_to(session, place.service_id, event)
        if current_deputy() is not None:
            await record_append(self.store, key, await written(event))
        return appended

    async def _refused(
        self, key: SessionKey, session: Session, event: Event, version: Revision | LastSeen
    ) -> Event:
        """Say why a session of the lobby has not taken an event, or return the event it holds."""
        new = await self._written(session, event)
        try:
            appended = await self.hand_overs.store.refused(key, new, version)
        except NoSuchSessionError as error:
            if new.is_message and (not new.by_agent or self._used_by(key) is UsedBy.ANYONE):
                await self.policy.refuse(key)
            raise SessionNotFoundError(f"Session {session.id} not found.") from error
        except OutdatedSessionError as error:
            raise StaleSessionError(STALE) from error
        return self._noted(session, event, appended)


def _is_of_lobby(version: Revision | LastSeen) -> bool:
    """Return whether a session was read from this store, and not from the other service."""
    return isinstance(version, Revision) and version.number is not None
