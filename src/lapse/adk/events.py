"""Reads stored events back as ADK's models.

ADK reads a whole conversation for each message, and most of the cost is validating its events. A
stored event never changes, so each is validated once and then copied from a cache. The cache needs
no invalidation, and an agent that changes its copy changes nothing else.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from threading import Lock
from typing import Final, Generic, TypeVar

from google.adk.events.event import Event

from lapse.adk.copiers import Copier, copier
from lapse.adk.settings import REMEMBERED_EVENTS
from lapse.store.records import EventRecord, JoinedEvents

__all__ = ["REMEMBERED", "Event", "RememberedEvents", "read_event", "read_events"]

T = TypeVar("T")
Parts = tuple[str, str, datetime, str | None]

_LONGEST_REMEMBERED: Final = 16 * 1024
"""Characters of an event's JSON. A longer event, such as an upload, is not cached."""

_LONGEST_CONVERSATION: Final = 256 * 1024
"""Bytes of a conversation's text. A longer one is not cached as a whole."""

_TEXT_PER_EVENT: Final = 4 * 1024
"""Bytes of text that conversations may take for each event that may be remembered."""


def read_event(record: EventRecord) -> Event:
    """Return a stored event as ADK's model; the caller may change it.

    As in ADK, ids are those of the columns, and the timestamp is that of the JSON if it has one.
    """
    if _is_long(record):
        return _validated(*_parts_of(record))
    event: Event = REMEMBERED.of(record)()
    return event


def read_events(records: Sequence[EventRecord]) -> list[Event]:
    """Return stored events as `read_event` does."""
    copiers = REMEMBERED.of_conversation(records)
    if copiers is not None:
        return [copied() for copied in copiers]
    return [read_event(record) for record in records]


def _parts_of(record: EventRecord) -> Parts:
    return record.id, record.invocation_id, record.timestamp, record.data


def _is_long(record: EventRecord) -> bool:
    return len(record.data or "") > _LONGEST_REMEMBERED


def _validated(event_id: str, invocation_id: str, timestamp: datetime, data: str | None) -> Event:
    document = {"timestamp": timestamp.timestamp()} | json.loads(data or "{}")
    return Event.model_validate(document | {"id": event_id, "invocation_id": invocation_id})


def _copier(event_id: str, invocation_id: str, timestamp: datetime, data: str | None) -> Copier:
    return copier(_validated(event_id, invocation_id, timestamp, data))


class RememberedEvents(Generic[T]):
    """Remembers one value, such as a copier, for each event that this process has read lately.

    A value is found by the event's text, or the values of all events by the text of a conversation.

    Args:
        make: makes the value from an event's columns; the value must not change.

    Attributes:
        most: for how many events a value is kept; for those in conversations, as many again.
    """

    def __init__(self, make: Callable[[str, str, datetime, str | None], T], most: int) -> None:
        self._make = make
        self.keep(most)

    def keep(self, most: int) -> None:
        """Keep the values of at most this many events; a new number forgets all values."""
        if most != getattr(self, "most", None):
            self.most = most
            self.kept = lru_cache(maxsize=most)(self._make)
            self.conversations = RememberedConversations[T](most, most * _TEXT_PER_EVENT)

    def of(self, record: EventRecord) -> T:
        """Return the value of an event; the value of a long event is not kept."""
        return (self._make if _is_long(record) else self.kept)(*_parts_of(record))

    def of_conversation(self, events: Sequence[EventRecord]) -> Sequence[T] | None:
        """Return the values of a conversation's events; None if such a conversation is not kept."""
        if not isinstance(events, JoinedEvents) or len(events.text) > _LONGEST_CONVERSATION:
            return None
        made = self.conversations.get(events.text)
        if made is None:
            if any(map(_is_long, events)):
                return None
            made = [self.of(record) for record in events]
            self.conversations.add(events.text, made)
        return made


class RememberedConversations(Generic[T]):
    """Remembers the values of a conversation's events by its text, for those read most recently.

    Threads may share an instance.

    Args:
        most_events: how many events the conversations may have together.
        most_bytes: how many bytes their texts may have together.
    """

    def __init__(self, most_events: int, most_bytes: int) -> None:
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._made: OrderedDict[bytes, Sequence[T]] = OrderedDict()
        self._gate = Lock()
        self.events = 0
        self.bytes = 0

    def get(self, text: bytes) -> Sequence[T] | None:
        """Return the values of a conversation's events, in order; None if they are not kept."""
        with self._gate:
            made = self._made.get(text)
            if made is not None:
                self._made.move_to_end(text)
            return made

    def add(self, text: bytes, made: Sequence[T]) -> None:
        """Keep a conversation, and forget those that were not read for longest."""
        with self._gate:
            if text in self._made:
                return
            self._made[text] = made
            self._account(text, made, +1)
            while self.events > self._most_events or self.bytes > self._most_bytes:
                self._account(*self._made.popitem(last=False), -1)

    def _account(self, text: bytes, made: Sequence[T], sign: int) -> None:
        self.events += sign * len(made)
        self.bytes += sign * len(text)


REMEMBERED: Final = RememberedEvents(_copier, REMEMBERED_EVENTS)
"""The copiers of events, for the whole process."""
