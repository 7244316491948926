"""Reads stored events back as ADK's models.

ADK reads a whole conversation for each message, and most of the cost is validating its events. A
stored event never changes, so each is validated once and then copied from a cache. The cache needs
no invalidation, and an agent that changes its copy changes nothing else.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from threading import Lock
from typing import Final

from google.adk.events.event import Event

from lapse.adk.copiers import Copier, copier
from lapse.adk.settings import REMEMBERED_EVENTS
from lapse.store.records import EventRecord, JoinedEvents

__all__ = ["REMEMBERED", "Event", "read_event", "read_events"]

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
    parts = (record.id, record.invocation_id, record.timestamp, record.data)
    if len(record.data or "") > _LONGEST_REMEMBERED:
        return _validated(*parts)
    event: Event = REMEMBERED.copier_of(*parts)()
    return event


def read_events(records: Sequence[EventRecord]) -> list[Event]:
    """Return stored events as `read_event` does."""
    if isinstance(records, JoinedEvents):
        copiers = REMEMBERED.copiers_of(records)
        if copiers is not None:
            return [copied() for copied in copiers]
    return [read_event(record) for record in records]


def _validated(event_id: str, invocation_id: str, timestamp: datetime, data: str | None) -> Event:
    document = {"timestamp": timestamp.timestamp()} | json.loads(data or "{}")
    return Event.model_validate(document | {"id": event_id, "invocation_id": invocation_id})


def _copier(event_id: str, invocation_id: str, timestamp: datetime, data: str | None) -> Copier:
    return copier(_validated(event_id, invocation_id, timestamp, data))


class RememberedEvents:
    """The copiers of the events that this process has read most recently.

    They are found by an event's text or, all at once, by the text of a conversation.

    Attributes:
        most: how many events are kept, and again as many in conversations.
    """

    def __init__(self, most: int) -> None:
        self.keep(most)

    def keep(self, most: int) -> None:
        """Keep at most so many events from now on; another number than before forgets all."""
        if most != getattr(self, "most", None):
            self.most = most
            self.copier_of = lru_cache(maxsize=most)(_copier)
            self.conversations = RememberedConversations(most, most * _TEXT_PER_EVENT)

    def copiers_of(self, events: JoinedEvents) -> Sequence[Copier] | None:
        """Return the copiers of a conversation's events; None if it is not one to be kept."""
        text, conversations = events.text, self.conversations
        if len(text) > _LONGEST_CONVERSATION:
            return None
        copiers = conversations.get(text)
        if copiers is None:
            if any(len(record.data) > _LONGEST_REMEMBERED for record in events):
                return None
            copiers = [
                self.copier_of(record.id, record.invocation_id, record.timestamp, record.data)
                for record in events
            ]
            conversations.add(text, copiers)
        return copiers


class RememberedConversations:
    """The copiers of the conversations that were read most recently, by their text.

    Threads may share it.

    Args:
        most_events: how many events the conversations may have together.
        most_bytes: how many bytes their texts may have together.
    """

    def __init__(self, most_events: int, most_bytes: int) -> None:
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._copiers: OrderedDict[bytes, Sequence[Copier]] = OrderedDict()
        self._gate = Lock()
        self.events = 0
        self.bytes = 0

    def get(self, text: bytes) -> Sequence[Copier] | None:
        """Return the copiers of a conversation's events, in order; None if it is not kept."""
        with self._gate:
            copiers = self._copiers.get(text)
            if copiers is not None:
                self._copiers.move_to_end(text)
            return copiers

    def add(self, text: bytes, copiers: Sequence[Copier]) -> None:
        """Keep a conversation, and forget those that were not read for longest."""
        with self._gate:
            if text in self._copiers:
                return
            self._copiers[text] = copiers
            self._account(text, copiers, +1)
            while self.events > self._most_events or self.bytes > self._most_bytes:
                self._account(*self._copiers.popitem(last=False), -1)

    def _account(self, text: bytes, copiers: Sequence[Copier], sign: int) -> None:
        self.events += sign * len(copiers)
        self.bytes += sign * len(text)


REMEMBERED: Final = RememberedEvents(REMEMBERED_EVENTS)
"""One cache for the whole process."""
