"""SQLite's values and rows, to and from plain data."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lapse.core.documents import read_metadata
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Rules, Status
from lapse.core.messages import is_message
from lapse.store.sessions import EventRecord

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Return an aware datetime as microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def floor(micros: int, span: timedelta) -> int:
    """Return when the span began in which a moment lies; the first one began at the epoch."""
    return micros - micros % duration_micros(span)


def duration_micros(duration: timedelta) -> int:
    """Return a duration in microseconds."""
    return duration // _MICROSECOND


def to_text(moment: datetime) -> str:
    """Return a time as ADK writes it: naive, UTC, always six digits, so that text sorts."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def from_text(text: str) -> datetime:
    """Read a time that ADK wrote."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def key_of(row: sqlite3.Row) -> SessionKey:
    """Return the key of a session's row."""
    return SessionKey(row["app_name"], row["user_id"], row["session_id"])


def event_params(event: EventRecord) -> dict[str, Any]:
    """Return the statement parameters that hold one event."""
    return {
        "event_id": event.id,
        "invocation_id": event.invocation_id,
        "event_time": to_text(event.timestamp),
        "event_data": event.data,
    }


def held_text(record: EventRecord) -> str:
    """Return an event as the lobby holds it; its data stays text, exact to the letter."""
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


def document(text: str | None) -> dict[str, Any]:
    """Read a JSON object; empty where there is none."""
    return json.loads(text) if text else {}


def document_of(row: sqlite3.Row | None) -> dict[str, Any]:
    """Read the `state` of a row; empty where there is no row."""
    return {} if row is None else document(row["state"])


def lobby_record(row: sqlite3.Row, rules: Rules, now: int) -> Lifecycle:
    """Read a lobby row as a record, as it reads at a moment."""
    status = Status(row["status"])
    record = Lifecycle(
        key=key_of(row),
        status=status,
        created_at=from_micros(row["created_at"]),
        ttl=timedelta(microseconds=row["ttl"]),
        expires_at=moment(row["expires_at"]),
        first_message_at=moment(row["first_message_at"]),
        expired_at=moment(row["expired_at"]),
        restorable_until=moment(row["restorable_until"]),
        resurrections=row["resurrections"],
        metadata=read_metadata(row["metadata"]),
    )
    # Only the deadline of a waiting session is ahead of what its row says.
    return rules.as_it_reads(record, from_micros(now)) if status is Status.WAITING else record


def adopted_record(key: SessionKey, create_time: str, events: Iterable[sqlite3.Row]) -> Lifecycle:
    """Return the record of a session that Lapse did not create, from its first message."""
    first = next((e for e in events if is_message(json.loads(e["event_data"] or "{}"))), None)
    return Lifecycle(
        key=key,
        status=Status.ORPHAN if first is None else Status.USED,
        created_at=from_text(create_time),
        first_message_at=None if first is None else from_text(first["timestamp"]),
        metadata={},
    )


def moment(micros: int | None) -> datetime | None:
    """Return microseconds since the epoch as a datetime, and none as none."""
    return None if micros is None else from_micros(micros)
