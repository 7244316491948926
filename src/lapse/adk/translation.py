"""Translates between ADK's models and the plain data of stores."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session
from pydantic_core import PydanticSerializationError, to_jsonable_python

from lapse.adk.copiers import twins_of
from lapse.adk.events import read_events
from lapse.adk.private.sessions import marked, marker_of, set_marker
from lapse.core.documents import StateDelta, encode, is_large, split_state
from lapse.core.errors import InvalidValueError
from lapse.core.messages import is_message, is_of_agent
from lapse.store.records import (
    EventRecord,
    EventWindow,
    JoinedEvents,
    LastSeen,
    NewEvent,
    Revision,
    SessionRecord,
)

_log = logging.getLogger(__name__)
_MANY_PARTS: Final = 100
_MANY: Final = 500
"""More events of a session, or sessions of a list, are made into ADK's models in a thread."""

_MUCH_TEXT: Final = 64 * 1024
"""Events with more characters than this together are, too."""

_LONGEST_EVENT_ID: Final = 128
_LONGEST_INVOCATION_ID: Final = 256


def storable_state(state: Mapping[str, Any]) -> StateDelta:
    """Return state as JSON values, split by scope.

    As in ADK, pydantic converts types such as datetimes, and a value that JSON cannot express is
    stored as its `repr`.

    Raises:
        InvalidValueError: the state cannot be stored.
    """
    if not state:
        return StateDelta()
    try:
        try:
            plain = to_jsonable_python(dict(state))
        except PydanticSerializationError:
            _log.warning("state holds values that are not JSON; their repr is stored instead")
            plain = to_jsonable_python(dict(state), serialize_unknown=True)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError("state", f"must be expressible as JSON: {error}") from error
    encode(plain, what="state")
    return split_state(plain)


def new_event(event: Event) -> NewEvent:
    """Return an event as ADK's DatabaseSessionService stores it, with its changes of state.

    Raises:
        InvalidValueError: the event cannot be stored.
    """
    for field, value, longest in (
        ("event id", event.id, _LONGEST_EVENT_ID),
        ("invocation id", event.invocation_id, _LONGEST_INVOCATION_ID),
    ):
        if len(value) > longest:
            raise InvalidValueError(field, f"must be at most {longest} characters long")
    try:
        timestamp = datetime.fromtimestamp(event.timestamp, UTC)
    except (ValueError, OverflowError, OSError) as error:
        reason = f"must be seconds since the epoch, not {event.timestamp!r}"
        raise InvalidValueError("event timestamp", reason) from error
    data = _dump(event)
    return NewEvent(
        EventRecord(event.id, event.invocation_id, timestamp, encode(data, what="event")),
        storable_state(event.actions.state_delta),
        is_message(data),
        by_agent=is_of_agent(data),
    )


async def written(event: Event) -> NewEvent:
    """Return what `new_event` does; of a large event it is made in a thread."""
    return await asyncio.to_thread(new_event, event) if is_large_event(event) else new_event(event)


def is_large_event(event: Event) -> bool:
    """Return whether an event is so large that a thread should write it."""
    documents: list[object] = [event.actions.state_delta]
    parts = (event.content.parts if event.content is not None else None) or ()
    for part in parts:
        if part.text is not None:
            documents.append(part.text)
        if part.inline_data is not None:
            documents.append(part.inline_data.data)
        if part.function_response is not None:
            documents.append(part.function_response.response)
        if part.function_call is not None:
            documents.append(part.function_call.args)
    return len(parts) > _MANY_PARTS or is_large(*documents)


def _dump(event: Event) -> dict[str, Any]:
    try:
        return event.model_dump(exclude_none=True, mode="json")
    except (ValueError, RecursionError) as error:
        raise InvalidValueError("event", f"must be expressible as JSON: {error}") from error


def seen(session: Session) -> Revision | LastSeen:
    """Return the version at which a session object was read, as exactly as the object knows it."""
    marker = marker_of(session)
    if marker is not None:
        try:
            revision = Revision.parse(marker)
        except ValueError:
            _log.debug("a session carries another service's marker")
        else:
            waiting = _is_waiting(session, revision)
            return Revision(revision.update_time, revision.number, waiting)
    last = session.events[-1].id if session.events else None
    return LastSeen(datetime.fromtimestamp(session.last_update_time, UTC), last)


def _is_waiting(session: Session, revision: Revision) -> bool:
    """Return whether a session object looks like one that waits for its first message.

    A waiting session holds each event that was appended to it, and none of them is a message. An
    object that was read without all of its events is taken for a used session.
    """
    events = session.events
    return len(events) == revision.number and not any(
        event.content or event.output_transcription or event.input_transcription for event in events
    )


def mark(session: Session, revision: Revision) -> None:
    """Write a revision into a session object, so that the service accepts the next append."""
    session.last_update_time = revision.update_time.timestamp()
    set_marker(session, revision.marker)


def copy_version(read: Session, session: Session) -> None:
    """Give a session object the version at which another one was read, marked or not."""
    session.last_update_time = read.last_update_time
    set_marker(session, marker_of(read))


def event_in(session: Session, event_id: str) -> Event | None:
    """Return a session object's event of this id; None if it has none."""
    return next((event for event in reversed(session.events) if event.id == event_id), None)


def window_of(config: GetSessionConfig | None) -> EventWindow:
    """Return the window of events that ADK's configuration asks for."""
    if config is None:
        return EventWindow()
    # As in ADK, an after_timestamp of 0 filters nothing.
    after = config.after_timestamp
    return EventWindow(
        config.num_recent_events, datetime.fromtimestamp(after, UTC) if after else None
    )


def session_of(record: SessionRecord) -> Session:
    """Return a stored session as ADK's model, with a marker of its revision."""
    return _session(
        {
            "app_name": record.key.app_name,
            "user_id": record.key.user_id,
            "id": record.key.session_id,
            "state": dict(record.state),
            "events": read_events(record.events),
            "last_update_time": record.revision.update_time.timestamp(),
        },
        marked(record.revision.marker),
    )


_session: Final = twins_of(
    Session(app_name="", user_id="", id=""),
    given=("app_name", "user_id", "id", "state", "events", "last_update_time"),
)


async def session_read(record: SessionRecord) -> Session:
    """Return what `session_of` does; a large session is made in a thread."""
    if are_large(record.events):
        return await asyncio.to_thread(session_of, record)
    return session_of(record)


def are_large(events: Sequence[EventRecord]) -> bool:
    """Return whether events take so long to read that a thread should do it."""
    if isinstance(events, JoinedEvents):
        return len(events.text) > _MUCH_TEXT
    return len(events) > _MANY or sum(len(event.data or "") for event in events) > _MUCH_TEXT


async def sessions_read(records: Sequence[SessionRecord]) -> list[Session]:
    """Return stored sessions as ADK's models; many are made in a thread."""
    if len(records) > _MANY:
        return await asyncio.to_thread(lambda: [session_of(record) for record in records])
    return [session_of(record) for record in records]
