"""Appending an event in SQLite: to ADK's tables, to the lobby, or from one into the other."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from lapse.documents import StateDelta, update_document
from lapse.errors import InvalidValueError, NoSuchSessionError, OutdatedSessionError
from lapse.lifecycle import HELD_BYTES, HELD_EVENTS, Cause, Change, ChangeKind, SessionKey
from lapse.store import Appended, Glimpse, NewEvent, Revision
from lapse.stores.sqlite import rows
from lapse.stores.sqlite.observations import observe_first_message
from lapse.stores.sqlite.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Append:
    """An event on its way into a session, with the parameters its statements share."""

    event: NewEvent
    params: dict[str, Any]
    held: str
    """The event as the lobby would hold it."""

    @classmethod
    def of(cls, event: NewEvent, seen: Revision | Glimpse) -> Append:
        """Prepare an append; done before the transaction, so that it holds up nobody."""
        record = event.record
        params = rows.event_params(record) | {
            "delta": _text(event.delta.session),
            "exact": isinstance(seen, Revision),
            "seen_time": rows.to_text(seen.update_time),
            "seen_number": seen.number if isinstance(seen, Revision) else None,
            "seen_event": seen.last_event_id if isinstance(seen, Glimpse) else None,
        }
        return cls(event, params, rows.held_text(record))

    def revision(self, number: int) -> Revision:
        """Return the session's revision once this is its newest event."""
        return Revision(self.event.record.timestamp, number)


def append(transaction: Transaction, step: Append) -> Appended:
    """Append one event; see `Store.append`."""
    # ADK's tables first: most sessions that hear an event have heard one before.
    if transaction.run("append", **step.params).rowcount:
        transaction.run("touch", **step.params)
        counted = transaction.first("count_append")
        update_outer_state(transaction, step.event.delta)
        return Appended(step.revision(0 if counted is None else counted["revision"]))
    stored = transaction.first("read_appended", **step.params)
    if stored is not None:
        return _already(step, stored, stored["event_data"])
    if not step.event.is_message:
        held = _hold(transaction, step)
        if held is not None:
            return held
    return _first_message(transaction, step)


def update_outer_state(transaction: Transaction, delta: StateDelta) -> None:
    """Let a change of app and user state take effect."""
    if delta.app:
        transaction.run("update_app_state", delta=_text(delta.app))
    if delta.user:
        transaction.run("update_user_state", delta=_text(delta.user))


def _hold(transaction: Transaction, step: Append) -> Appended | None:
    """Hold an event that is no message in the lobby; None when the lobby holds too much."""
    row = transaction.first(
        "hold_event",
        **step.params,
        event=step.held,
        most_events=HELD_EVENTS,
        most_bytes=HELD_BYTES,
    )
    if row is not None:
        update_outer_state(transaction, step.event.delta)
        return Appended(step.revision(row["revision"]))
    if transaction.first("read") is None:
        raise _missing(transaction.key)
    lobby = transaction.first("read_lobby")
    assert lobby is not None
    held = {event.id: event for event in rows.held_events(lobby["held_events"])}
    if step.event.record.id in held:
        return _already(step, lobby, held[step.event.record.id].data)
    return None


def _first_message(transaction: Transaction, step: Append) -> Appended:
    lobby = transaction.first("first_message", **step.params)
    if lobby is None:
        record = transaction.lifecycle()
        if record is None:
            raise _missing(transaction.key)
        raise _outdated(transaction.key)
    was_expired = lobby["expired_at"] is not None or (
        transaction.rules.enforced and lobby["expires_at"] <= transaction.now
    )
    resurrections = lobby["resurrections"] + was_expired
    observe_first_message(transaction)
    _move(transaction, step, lobby)
    settled = transaction.first("settle_used", resurrections=resurrections)
    assert settled is not None
    record = rows.lobby_record(settled, transaction.rules, transaction.now)
    used = Change(ChangeKind.USED, transaction.moment, record)
    resurrected = Change(ChangeKind.RESURRECTED, transaction.moment, record, Cause.MESSAGE)
    return Appended(
        step.revision(lobby["revision"]), (resurrected, used) if was_expired else (used,)
    )


def _move(transaction: Transaction, step: Append, lobby: sqlite3.Row) -> None:
    """Write what the lobby held, then the message, into ADK's tables."""
    delta = step.params["delta"]
    transaction.run(
        "move_session",
        state=lobby["state"] if delta is None else update_document(lobby["state"], delta),
        create_time=rows.to_text(rows.from_micros(lobby["created_at"])),
        event_time=step.params["event_time"],
    )
    held = rows.held_events(lobby["held_events"])
    if step.event.record.id in {event.id for event in held}:
        raise _taken(step.event.record.id)
    for event in (*held, step.event.record):
        transaction.run("move_event", **rows.event_params(event))
    transaction.run("ensure_app_state")
    transaction.run("ensure_user_state")
    update_outer_state(transaction, step.event.delta)


def _already(step: Append, row: sqlite3.Row, stored: str | None) -> Appended:
    """Answer for a session that would not take the event: stored before, or outdated."""
    event = step.event.record
    if stored is None:
        raise OutdatedSessionError("the session was changed in the store since it was read")
    if stored != event.data:
        raise _taken(event.id)
    revision = Revision(rows.from_text(row["update_time"]), row["revision"])
    seen = step.params["seen_number"]
    is_newest = revision.update_time == event.timestamp
    alone = seen is None or revision.number in {seen, seen + 1}
    return Appended(revision if is_newest and alone else None, repeated=True)


def _missing(key: SessionKey) -> NoSuchSessionError:
    return NoSuchSessionError(f"session {key.short}… does not exist")


def _outdated(key: SessionKey) -> OutdatedSessionError:
    return OutdatedSessionError(f"session {key.short}… was changed since it was read")


def _taken(event_id: str) -> InvalidValueError:
    reason = f"{event_id[:8]}… is another event of this session; give the new one its own"
    return InvalidValueError("event id", reason)


def _text(delta: Any) -> str | None:
    return json.dumps(delta) if delta else None
