"""Replaces values of agents and tools that no store can hold: the user still gets the answer.

The text of a PDF with NUL characters, a file name with half a character, a mean of no numbers:
tools return such values, and a run must not end because of one. What a client sends is refused
instead, by `lapse.core.documents.encode`, because a client can send something else.
"""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Mapping
from functools import partial
from math import isfinite
from typing import Any, Final

from google.adk.events.event import Event
from google.adk.sessions.session import Session
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from lapse.adk.translation import is_large_event, written
from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from lapse.core.log_rate import LogRateLimit
from lapse.store.records import NewEvent

_log = logging.getLogger(__name__)
_log.addFilter(LogRateLimit())

_CLIENT: Final = "user"
"""The author of what a client asks for: ADK gives it to a `PATCH`, and to a run's message with the
change of state beside it."""

_INSTEAD: Final = "\ufffd"
"""Unicode's replacement character, which stands where a character cannot be stored."""

_TRACES: Final = ("null", r"\ufffd")
"""Pydantic itself writes NaN as null, and half a character of a key as U+FFFD three times, but the
event keeps its own. Only an event with one of these in its text is searched."""

_LONGEST_NAMES: Final = 200
"""Characters of the names that a line of the log has."""


def is_from_client(event: Event) -> bool:
    """Return whether a client asks for an event.

    The summary of a compaction has the same author, but an agent writes it.
    """
    return event.author == _CLIENT and event.actions.compaction is None


async def written_storable(session: Session, event: Event) -> NewEvent:
    """Return what `written` does, after replacing in an agent's event what no store can hold.

    NUL and lone surrogates become U+FFFD, NaN and infinities become null, in keys, too, and
    objects that JSON cannot express become their text. The event itself is changed, so that the
    session object, the agent and the stream have what is stored. One warning names the tools or
    the agent.

    Raises:
        InvalidValueError: a client's event cannot be stored, or an agent's for another reason.
    """
    try:
        new = await written(event)
    except InvalidValueError:
        if is_from_client(event) or not await _replace(session, event):
            raise
        return await written(event)
    if is_from_client(event) or not any(trace in new.record.data for trace in _TRACES):
        return new
    return await written(event) if await _replace(session, event) else new


async def _replace(session: Session, event: Event) -> bool:
    """Replace in an event what no store can hold; return whether there was any."""
    large = is_large_event(event)
    changed = await asyncio.to_thread(_changed_fields, event) if large else _changed_fields(event)
    if not changed:
        return False
    tools, names = _tools(event, changed), set(event.actions.state_delta)
    for field, value in changed.items():
        setattr(event, field, value)
    for name in names - set(event.actions.state_delta):
        session.state.pop(name, None)  # a tool writes state there as well, by the name it chose
    _log.warning(
        "%s made values that no store can hold; U+FFFD and null are stored in their place",
        f"the tool {', '.join(tools)}"[:_LONGEST_NAMES] if tools else "the agent",
        extra={
            "app": session.app_name,
            "session": SessionKey(session.app_name, session.user_id, session.id).short,
            "agent": event.author[:_LONGEST_NAMES],
        },
    )
    return True


def _changed_fields(event: Event) -> dict[str, Any]:
    """Return the event's fields that no store can hold, as a store can hold them."""
    fields = dict(event)
    del fields["timestamp"]
    try:
        after = {
            name: storable(value, bytes_as_text=name == "actions") for name, value in fields.items()
        }
    except (ValueError, RecursionError):
        return {}  # something contains itself, and no store can hold any of it
    return _differences(fields, after)


def _tools(event: Event, changed: Mapping[str, Any]) -> list[str]:
    """Return the names of the tools whose responses change; if none does, of all in the event."""
    content = changed.get("content", event.content)
    before = (event.content.parts if event.content is not None else None) or []
    after = (content.parts if content is not None else None) or []
    tools = [
        (part.function_response.name or "", part is old)
        for part, old in zip(after, before, strict=True)
        if part.function_response is not None
    ]
    return [name for name, same in tools if not same] or [name for name, _ in tools]


def storable(value: Any, *, bytes_as_text: bool = False) -> Any:
    """Return `value` itself if a store can hold it, else a copy that a store can hold.

    Only what differs is copied, and `value` is not changed: a tool may keep what it has returned.
    With `bytes_as_text` bytes are UTF-8, as pydantic writes them outside of ADK's content.
    """
    inner = partial(storable, bytes_as_text=bytes_as_text)
    kept: Any = value
    match value:
        case None | bool() | int():
            pass
        case str():
            kept = _storable_text(value)
        case bytes():
            kept = _storable_bytes(value) if bytes_as_text else value
        case float():
            kept = value if isfinite(value) else None
        case dict():
            items = {_storable_key(key): inner(one) for key, one in value.items()}
            same = items.keys() == value.keys() and not _differences(value, items)
            kept = value if same else items
        case list() | tuple() | set() | frozenset():
            ones = [inner(one) for one in value]
            kept = value if all(map(operator.is_, ones, value)) else ones
        case BaseModel():
            fields = dict(value)
            changed = _differences(fields, {name: inner(one) for name, one in fields.items()})
            kept = value.model_copy(update=changed) if changed else value
        case _:
            kept = _storable_object(value)
    return kept


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if value is not before[name]}


def _storable_key(key: Any) -> Any:
    return _storable_text(key) if isinstance(key, str) else key


def _storable_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        # Two surrogates that belong together become their character.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", _INSTEAD) if "\0" in text else text


def _storable_bytes(value: bytes) -> bytes | str:
    try:
        value.decode()
    except UnicodeDecodeError:
        return _storable_text(value.decode(errors="replace"))
    return value if b"\0" not in value else _storable_text(value.decode())


def _storable_object(value: Any) -> Any:
    """Return an object as it is if pydantic makes storable JSON of it, else as JSON."""
    try:
        plain = to_jsonable_python(value)
    except ValueError:
        return storable(to_jsonable_python(value, serialize_unknown=True))
    kept = storable(plain)
    return value if kept is plain else kept
