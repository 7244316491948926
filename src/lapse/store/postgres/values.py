"""Converting PostgreSQL's values to and from plain data."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from asyncpg import Record

from lapse.core.documents import StateDelta
from lapse.store.operation import Dialect
from lapse.store.records import EventRecord, LastSeen, NewEvent, Revision
from lapse.store.statements import read_types


def to_naive(moment: datetime) -> datetime:
    """Return a time as ADK's columns hold it: naive, in UTC."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def from_naive(moment: datetime) -> datetime:
    """Return a time of ADK's columns as an aware datetime."""
    return moment.replace(tzinfo=UTC)


_NAIVE: Final = frozenset(
    name for name, kind in read_types(Dialect.POSTGRES).items() if kind == "timestamp"
)
"""Parameters that hold a naive time in UTC, as ADK's columns do."""


def bound(names: Sequence[str], given: Mapping[str, Any]) -> list[Any]:
    """Return the arguments of a statement, in the order of its parameters."""
    return [
        to_naive(value) if name in _NAIVE and (value := given[name]) else given[name]
        for name in names
    ]


class Found:
    """A row; it returns ADK's naive times as aware ones."""

    __slots__ = ("_record",)

    def __init__(self, record: Record) -> None:
        self._record = record

    def __getitem__(self, column: str) -> Any:
        """Return a column's value as plain data; KeyError if there is no such column."""
        value = self._record[column]
        if type(value) is datetime and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value


def text_of(delta: Mapping[str, Any]) -> str | None:
    """Return a change of state as JSON; None if nothing changes."""
    return json.dumps(delta) if delta else None


def append_params(event: NewEvent, seen: Revision | LastSeen) -> dict[str, Any]:
    """Return the statement parameters that hold an event and what its writer has seen."""
    record = event.record
    return state_params(event.delta) | {
        "event_id": record.id,
        "invocation_id": record.invocation_id,
        "event_time": record.timestamp,
        "event_data": record.data,
        "exact": isinstance(seen, Revision),
        "seen_time": seen.update_time,
        "seen_number": seen.number if isinstance(seen, Revision) else None,
        "seen_event": seen.last_event_id if isinstance(seen, LastSeen) else None,
        "by_agent": event.by_agent,
    }


def state_params(delta: StateDelta) -> dict[str, Any]:
    """Return the statement parameters that hold a change of state."""
    return {
        "session_delta": text_of(delta.session),
        "app_delta": text_of(delta.app),
        "user_delta": text_of(delta.user),
    }


def held_text(event: EventRecord) -> str:
    """Return an event as the lobby holds it."""
    return json.dumps(
        {
            "id": event.id,
            "invocation_id": event.invocation_id,
            "timestamp": to_naive(event.timestamp).isoformat(),
            "event_data": json.loads(event.data),
        }
    )


def held_events(text: str) -> list[EventRecord]:
    """Read the events that the lobby holds, in the order they came."""
    return [
        EventRecord(
            held["id"],
            held["invocation_id"],
            from_naive(datetime.fromisoformat(held["timestamp"])),
            json.dumps(held.get("event_data")),
        )
        for held in json.loads(text)
    ]


def split_events(text: bytes) -> list[EventRecord]:
    """Read the `event_text` of the statement `read`, in ADK's order."""
    arrays, end = [], 0
    for _ in range(4):
        array, end = _array(text, end)
        arrays.append(reversed(array))
    return [
        EventRecord(event_id.decode(), invocation_id.decode(), _time(timestamp), data.decode())
        for event_id, invocation_id, timestamp, data in zip(*arrays, strict=True)
    ]


_DIMENSION: Final = struct.Struct("!12xi4x")
"""The header of an array of one dimension; its one number here is that of the items."""

_LENGTH: Final = struct.Struct("!i")
_MICROSECONDS: Final = struct.Struct("!q")
_Y2K: Final = datetime(2000, 1, 1, tzinfo=UTC)
_INFINITY: Final = {
    -(2**63): datetime.min.replace(tzinfo=UTC),
    2**63 - 1: datetime.max.replace(tzinfo=UTC),
}


def _array(text: bytes, start: int) -> tuple[list[bytes], int]:
    """Read an array that begins at `start`, none of whose items is NULL; return where it ends."""
    (items,) = _DIMENSION.unpack_from(text, start)
    found, end = [], start + _DIMENSION.size
    for _ in range(items):
        (length,) = _LENGTH.unpack_from(text, end)
        begin = end + _LENGTH.size
        end = begin + length
        found.append(text[begin:end])
    return found, end


def _time(sent: bytes) -> datetime:
    (micros,) = _MICROSECONDS.unpack(sent)
    infinity = _INFINITY.get(micros)
    return _Y2K + timedelta(microseconds=micros) if infinity is None else infinity
