"""Reads stored events back as ADK's models.

ADK reads a whole conversation for each message, and most of the cost is validating its events. A
stored event never changes, so each is validated once and then copied from a cache. The cache needs
no invalidation, and an agent that changes its copy changes nothing else.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache, partial
from types import NoneType
from typing import Any, Final

from google.adk.events.event import Event
from pydantic import BaseModel

from lapse.adk.settings import REMEMBERED_EVENTS
from lapse.store.records import EventRecord

__all__ = ["REMEMBERED", "Event", "copier", "read_event"]

_LONGEST_REMEMBERED: Final = 16 * 1024
"""Characters of an event's JSON. A longer event, such as an upload, is not cached."""

_ATOMS: Final = frozenset({str, int, float, bool, bytes, NoneType})

Copier = Callable[[], Any]


def read_event(record: EventRecord) -> Event:
    """Return a stored event as ADK's model; the caller may change it.

    As in ADK, ids are those of the columns, and the timestamp is that of the JSON if it has one.
    """
    parts = (record.id, record.invocation_id, record.timestamp, record.data)
    if len(record.data or "") > _LONGEST_REMEMBERED:
        return _validated(*parts)
    event: Event = REMEMBERED.copier_of(*parts)()
    return event


def _validated(event_id: str, invocation_id: str, timestamp: datetime, data: str | None) -> Event:
    document = {"timestamp": timestamp.timestamp()} | json.loads(data or "{}")
    return Event.model_validate(document | {"id": event_id, "invocation_id": invocation_id})


def _copier(event_id: str, invocation_id: str, timestamp: datetime, data: str | None) -> Copier:
    return copier(_validated(event_id, invocation_id, timestamp, data))


class RememberedEvents:
    """The copiers of the events that this process has read most recently.

    Attributes:
        most: how many events are kept; each takes some twelve kilobytes.
    """

    def __init__(self, most: int) -> None:
        self.keep(most)

    def keep(self, most: int) -> None:
        """Keep at most so many events from now on; another number than before forgets all."""
        if most != getattr(self, "most", None):
            self.most = most
            self.copier_of = lru_cache(maxsize=most)(_copier)


REMEMBERED: Final = RememberedEvents(REMEMBERED_EVENTS)
"""One cache for the whole process."""


def copier(value: Any) -> Copier:
    """Return a function that makes deep copies of a value, faster than `copy.deepcopy`.

    It inspects the value once, here, and not for each copy. The copies equal those of
    `model_copy(deep=True)`. The value must not change afterwards and must not contain itself;
    values read from JSON never do.
    """
    kind = type(value)
    if kind is dict:
        return partial(_copy_dict, value, _parts(value.items()))
    if kind is list:
        return partial(_copy_list, value, _parts(enumerate(value)))
    if isinstance(value, BaseModel):
        hidden = [
            (name, getattr(value, name)) for name in ("__pydantic_extra__", "__pydantic_private__")
        ]
        return partial(_copy_model, value, _parts(value.__dict__.items()), hidden)
    return partial(copy.deepcopy, value)


_Parts = list[tuple[Any, Copier]]


def _parts(items: Iterable[tuple[Any, Any]]) -> _Parts:
    """Return the keys, indexes or names of the mutable parts, each with its copier."""
    return [(where, copier(part)) for where, part in items if type(part) not in _ATOMS]


def _copy_dict(value: dict[Any, Any], parts: _Parts) -> dict[Any, Any]:
    twin = value.copy()
    for where, copy_part in parts:
        twin[where] = copy_part()
    return twin


def _copy_list(value: list[Any], parts: _Parts) -> list[Any]:
    twin = value.copy()
    for where, copy_part in parts:
        twin[where] = copy_part()
    return twin


def _copy_model(value: BaseModel, parts: _Parts, hidden: list[tuple[str, Any]]) -> BaseModel:
    twin = value.__class__.__new__(value.__class__)
    set_attribute = object.__setattr__
    set_attribute(twin, "__dict__", _copy_dict(value.__dict__, parts))
    set_attribute(twin, "__pydantic_fields_set__", value.__pydantic_fields_set__.copy())
    for name, part in hidden:
        set_attribute(twin, name, part if part is None else copy.deepcopy(part))
    return twin
