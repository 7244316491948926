"""Lists of sessions of which the lobby holds some and another service the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from google.adk.sessions.session import Session

from lapse.adk.elsewhere import known_as
from lapse.adk.listing import ListedSession
from lapse.adk.translation import session_of
from lapse.conversations.places import ListedPlace
from lapse.conversations.rules import Where, alias_of
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Status
from lapse.core.messages import is_message

_NOT_THERE: Final = frozenset({Where.LOBBY, Where.MOVING, Where.DELETING})
"""The places of a session of which the service may hold remains, but not the session itself."""


def differ(theirs: Iterable[Session], places: Iterable[ListedPlace]) -> bool:
    """Return whether the service lists a session that is not there according to the lobby."""
    known = {place.key: place for place in places}
    absent = {key for key, place in known.items() if place.where in _NOT_THERE}
    for session in theirs:
        key = _named(session)
        if key in absent or (key.session_id != session.id and not _is_there(session, known)):
            return True
    return False


def merged(
    own: Iterable[Session], theirs: Iterable[Session], places: Iterable[ListedPlace]
) -> list[Session]:
    """Return the sessions of store and service, each once, the most recent one last.

    `own` was read first, and `places` last if they `differ`, so that a session that was handed over
    in the meantime is in one of them. A session on its way reads as the lobby holds it.
    """
    known = {place.key: place for place in places}
    found = {_key(session): session for session in own}
    for session in theirs:
        key = _named(session)
        place = known.get(key)
        if place is not None and place.where in _NOT_THERE:
            continue
        if key.session_id != session.id and not _is_there(session, known):
            key = _key(session)  # its record was lost
        found[key] = known_as(session, key)
    for place in known.values():
        if place.moving is not None:
            found[place.key] = session_of(place.moving)
        elif place.where is Where.DELETING:
            found.pop(place.key, None)
    return sorted(found.values(), key=lambda one: (one.last_update_time, one.user_id, one.id))


def with_records(
    own: Iterable[ListedSession],
    *,
    here: Iterable[ListedSession],
    listed: Iterable[Session],
    records: Iterable[Lifecycle],
    at: datetime,
    status: Collection[str] | None,
) -> list[ListedSession]:
    """Return the sessions of `own`, and the other listed sessions that have one of the statuses.

    `here` has all sessions that this store lists, `records` has those of the service's sessions. An
    old conversation has no record: it reads as used, because a list tells nothing of its events.
    """
    found = {_key(one.session): one for one in own}
    shown_here = {_key(one.session) for one in here}
    known = {record.key: record for record in records}
    for session in listed:
        key = _key(session)
        if key in shown_here:
            continue
        record = known.get(key) or _of_old(key, session.last_update_time, Status.USED)
        if status is None or record.status in status:
            found[key] = ListedSession(session, record, at)
    return sorted(found.values(), key=lambda one: (one.session.last_update_time, one.session.id))


def record_of_old(key: SessionKey, session: Session) -> Lifecycle:
    """Return the record of a session that only the service knows, read with all of its events."""
    messages = (
        event.timestamp
        for event in session.events
        if is_message(event.model_dump(exclude_none=True, mode="json"))
    )
    first = next(messages, None)
    began = session.events[0].timestamp if session.events else session.last_update_time
    return _of_old(key, began, Status.ORPHAN if first is None else Status.USED, first)


def _of_old(key: SessionKey, began: float, status: Status, first: float | None = None) -> Lifecycle:
    return Lifecycle(
        key=key,
        status=status,
        created_at=datetime.fromtimestamp(began, UTC),
        first_message_at=None if first is None else datetime.fromtimestamp(first, UTC),
        metadata={},
    )


def _named(session: Session) -> SessionKey:
    """Return the key by which clients know a session of the service."""
    return _key(session)._replace(session_id=alias_of(session.state) or session.id)


def _is_there(session: Session, known: Mapping[SessionKey, ListedPlace]) -> bool:
    """Return whether the record of a session with another id in the service tells of it."""
    place = known.get(_named(session))
    return place is not None and place.service_id == session.id and place.where not in _NOT_THERE


def _key(session: Session) -> SessionKey:
    return SessionKey(session.app_name, session.user_id, session.id)
