"""Converting SQLite's values to and from plain data."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from lapse.core.documents import read_object
from lapse.store.operation import Dialect
from lapse.store.records import EventRecord
from lapse.store.statements import read_types

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Return an aware datetime as microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime in UTC."""
    return _EPOCH + _MICROSECOND * micros


def to_text(moment: datetime) -> str:
    """Return a time as ADK writes it: naive, in UTC, always with six digits, so that it sorts."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def from_text(text: str) -> datetime:
    """Return a time that ADK wrote, naive and in UTC, as an aware datetime."""
    return datetime.fromisoformat(
        f"{text}+00:00"
    )  # `replace(tzinfo=UTC)` takes three times as long


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "moment": from_micros,  # microseconds since the epoch
    "adk_time": from_text,
    "duration": lambda micros: _MICROSECOND * micros,
    "day": date.fromisoformat,
}

_TYPES: Final = read_types(Dialect.SQLITE)
_DECODERS: Final = {name: _READERS[kind] for name, kind in _TYPES.items()}
PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
"""Types whose values SQLite takes as they are."""


class Found:
    """A row that converts a value only when it is read, because most are not.

    Its column `now` is the moment of its transaction.
    """

    __slots__ = ("_now", "_row")

    def __init__(self, row: sqlite3.Row, now: int) -> None:
        self._row = row
        self._now = now

    def __getitem__(self, column: str) -> Any:
        """Return a column's value as plain data; IndexError if there is no such column."""
        if column == "now":
            return from_micros(self._now)
        value = self._row[column]
        if value is None or column not in _DECODERS:
            return value
        return _DECODERS[column](value)


def encoded(name: str, value: Any) -> Any:
    """Return a plain value as the parameter `name` of a statement takes it.

    Moments and spans become microseconds, ADK's times and days become text, lists become JSON.
    """
    if type(value) in PLAIN:
        return value
    match value:
        case datetime():
            return to_text(value) if _TYPES.get(name) == "adk_time" else to_micros(value)
        case timedelta():
            return value // _MICROSECOND
        case date():
            return value.isoformat()
        case list() | tuple():
            return json.dumps([encoded(name, one) for one in value])
        case _:
            return value


def event_params(event: EventRecord) -> dict[str, Any]:
    """Return the statement parameters that hold one event."""
    return {
        "event_id": event.id,
        "invocation_id": event.invocation_id,
        "event_time": to_text(event.timestamp),
        "event_data": event.data,
    }


def held_text(record: EventRecord) -> str:
    """Return an event as the lobby holds it; its data stays the same text."""
    return json.dumps(
        {
            "id": record.id,
            "invocation_id": record.invocation_id,
            "timestamp": to_text(record.timestamp),
            "event_data": record.data,
        }
    )


def held_events(text: str | None) -> list[EventRecord]:
    """Read the events that the lobby holds, in the order they came."""
    return [
        EventRecord(e["id"], e["invocation_id"], from_text(e["timestamp"]), e["event_data"])
        for e in json.loads(text or "[]")
    ]


def split_events(text: bytes) -> list[EventRecord]:
    """Read the events of the statement `event_text`, in ADK's order."""
    found: list[tuple[bytes, bytes, EventRecord]] = []
    start = 0
    while start < len(text):
        colon = text.index(b":", start)
        columns, end = [], colon + 1
        for length in text[start:colon].split(b","):
            columns.append(text[end : end + int(length)])
            end += int(length)
        event_id, invocation_id, timestamp, data = (column.decode() for column in columns)
        record = EventRecord(event_id, invocation_id, from_text(timestamp), data)
        found.append((columns[2], columns[0], record))
        start = end
    # SQLite compares texts by their bytes. An id stands once in a session, so no two are alike.
    return [record for _, _, record in sorted(found)]


def document_of(row: sqlite3.Row | None) -> dict[str, Any]:
    """Read the `state` of a row; an empty one if there is no row."""
    return {} if row is None else read_object(row["state"])
