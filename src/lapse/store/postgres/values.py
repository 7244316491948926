"""PostgreSQL's rows, to and from plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from asyncpg import Record

from lapse.core.documents import StateDelta, read_metadata
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Rules, Status
from lapse.core.messages import is_message
from lapse.store.sessions import EventRecord, Glimpse, NewEvent, Revision


def to_naive(moment: datetime) -> datetime:
    """Return a time as ADK's columns hold it: naive, in UTC."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def from_naive(moment: datetime) -> datetime:
    """Read a time of ADK's columns."""
    return moment.replace(tzinfo=UTC)


def document(text: str | None) -> dict[str, Any]:
    """Read a JSON object; empty where there is none."""
    return json.loads(text) if text else {}


def text_of(delta: Mapping[str, Any]) -> str | None:
    """Return a change of state as JSON; None where nothing changes."""
    return json.dumps(delta) if delta else None


def state_params(delta: StateDelta) -> dict[str, Any]:
    """Return the statement parameters that hold a change of state."""
    return {
        "session_delta": text_of(delta.session),
        "app_delta": text_of(delta.app),
        "user_delta": text_of(delta.user),
    }


def append_params(event: NewEvent, seen: Revision | Glimpse) -> dict[str, Any]:
    """Return the statement parameters that hold an event and what its writer has seen."""
    record = event.record
    return state_params(event.delta) | {
        "event_id": record.id,
        "invocation_id": record.invocation_id,
        "event_time": to_naive(record.timestamp),
        "event_data": record.data,
        "exact": isinstance(seen, Revision),
        "seen_time": to_naive(seen.update_time),
        "seen_number": seen.number if isinstance(seen, Revision) else None,
        "seen_event": seen.last_event_id if isinstance(seen, Glimpse) else None,
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
            json.dumps(held["event_data"]),
        )
        for held in json.loads(text)
    ]


def stored_events(row: Record) -> list[EventRecord]:
    """Read the events of a row of `read`, which come newest first, in ADK's order."""
    columns = (row["ids"], row["invocation_ids"], row["timestamps"], row["event_texts"])
    if columns[0] is None:
        return []
    return [
        EventRecord(event_id, invocation_id, from_naive(timestamp), text)
        for event_id, invocation_id, timestamp, text in zip(*map(reversed, columns), strict=True)
    ]


def lobby_record(row: Record, rules: Rules) -> Lifecycle:
    """Read a lobby row, with the `now` it was read at, as a record."""
    record = Lifecycle(
        key=SessionKey(row["app_name"], row["user_id"], row["session_id"]),
        status=Status(row["status"]),
        created_at=row["created_at"],
        ttl=row["ttl"],
        expires_at=row["expires_at"],
        first_message_at=row["first_message_at"],
        expired_at=row["expired_at"],
        restorable_until=row["restorable_until"],
        resurrections=row["resurrections"],
        metadata=read_metadata(row["metadata"]),
    )
    return rules.as_it_reads(record, row["now"])


def adopted_record(key: SessionKey, create_time: datetime, events: Iterable[Record]) -> Lifecycle:
    """Return the record of a session that Lapse did not create, from its first message."""
    first = next((e for e in events if is_message(document(e["event_data"]))), None)
    return Lifecycle(
        key=key,
        status=Status.ORPHAN if first is None else Status.USED,
        created_at=from_naive(create_time),
        first_message_at=None if first is None else from_naive(first["timestamp"]),
        metadata={},
    )
