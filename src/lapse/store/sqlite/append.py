"""Appending an event in SQLite: to ADK's tables, to the lobby, or from one into the other."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from lapse.core.documents import StateDelta, update_document
from lapse.core.errors import InvalidValueError, NoSuchSessionError, OutdatedSessionError
from lapse.core.lifecycle import HELD_BYTES, HELD_EVENTS, Cause, Change, ChangeKind, Status
from lapse.store.sessions import Appended, Glimpse, NewEvent, Revision
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.observations import observe_first_message
from lapse.store.sqlite.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Append:
    """An event on its way into a session, with the parameters its statements share."""

    event: NewEvent
    waiting: bool
    """Whether its writer saw the session in the lobby."""
    params: dict[str, Any]
    held: str
    """The event as the lobby would hold it; empty for a message."""

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
        waiting = isinstance(seen, Revision) and seen.waiting
        return cls(event, waiting, params, "" if event.is_message else rows.held_text(record))

    def revision(self, number: int, *, waiting: bool = False) -> Revision:
        """Return the session's revision once this is its newest event."""
        return Revision(self.event.record.timestamp, number, waiting=waiting)


def append(transaction: Transaction, step: Append) -> Appended:
    """Append one event; see `Store.append`.

    A session is in one place only, so the order in which they are tried is a matter of speed.
    """
    places = (_to_lobby, _to_tables) if step.waiting else (_to_tables, _to_lobby)
    for place in places:
        appended = place(transaction, step)
        if appended is not None:
            return appended
    return _explain(transaction, step)


def update_outer_state(transaction: Transaction, delta: StateDelta) -> None:
    """Let a change of app and user state take effect."""
    if delta.app:
        transaction.run("update_app_state", delta=_text(delta.app))
    if delta.user:
        transaction.run("update_user_state", delta=_text(delta.user))


def _to_tables(transaction: Transaction, step: Append) -> Appended | None:
    if not transaction.run("append", **step.params).rowcount:
        return None
    transaction.run("touch", **step.params)
    counted = transaction.first("count_append")
    update_outer_state(transaction, step.event.delta)
    return Appended(step.revision(0 if counted is None else counted["revision"]))


def _to_lobby(transaction: Transaction, step: Append) -> Appended | None:
    if not step.event.is_message:
        row = transaction.first(
            "hold_event",
            **step.params,
            event=step.held,
            most_events=HELD_EVENTS,
            most_bytes=HELD_BYTES,
        )
        if row is not None:
            update_outer_state(transaction, step.event.delta)
            return Appended(step.revision(row["revision"], waiting=True))
        # Too much is held already, which counts as use, or the session has expired.
        if transaction.first("read") is None:
            return None
    return _first_message(transaction, step)


def _first_message(transaction: Transaction, step: Append) -> Appended | None:
    lobby = transaction.first("first_message", **step.params)
    if lobby is None:
        return None
    was_expired = lobby["expired_at"] is not None or (
        transaction.rules.enforced and lobby["expires_at"] <= transaction.now
    )
    resurrections = lobby["resurrections"] + was_expired
    was = Status.WAITING if lobby["expired_at"] is None else Status.EXPIRED
    if was_expired:
        transaction.count(ChangeKind.RESURRECTED, was, Status.WAITING)
        was = Status.WAITING
    transaction.count(ChangeKind.USED, was, Status.USED)
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
    for event in (*rows.held_events(lobby["held_events"]), step.event.record):
        transaction.run("move_event", **rows.event_params(event))
    transaction.run("ensure_app_state")
    transaction.run("ensure_user_state")
    update_outer_state(transaction, step.event.delta)


def _explain(transaction: Transaction, step: Append) -> Appended:
    """Say why no place took the event: stored before, gone, or outdated."""
    stored = transaction.first("read_appended", **step.params)
    if stored is not None:
        return _already(transaction, step, stored, stored["event_data"])
    record = transaction.lifecycle()
    if record is None or (record.status is Status.EXPIRED and not step.event.is_message):
        raise NoSuchSessionError(f"session {transaction.key.short}… does not exist")
    lobby = transaction.first("read_lobby")
    assert lobby is not None
    held = {event.id: event.data for event in rows.held_events(lobby["held_events"])}
    return _already(transaction, step, lobby, held.get(step.event.record.id), waiting=True)


def _already(
    transaction: Transaction,
    step: Append,
    row: sqlite3.Row,
    stored: str | None,
    *,
    waiting: bool = False,
) -> Appended:
    """Answer for a session that would not take the event: stored before, or outdated."""
    key, event = transaction.key, step.event.record
    if stored is None:
        raise OutdatedSessionError(f"session {key.short}… was changed since it was read")
    if stored != event.data:
        reason = f"{event.id[:8]}… is another event of this session; give the new one its own"
        raise InvalidValueError("event id", reason)
    revision = Revision(rows.from_text(row["update_time"]), row["revision"], waiting=waiting)
    seen = step.params["seen_number"]
    is_newest = revision.update_time == event.timestamp
    alone = seen is None or revision.number in {seen, seen + 1}
    return Appended(revision if is_newest and alone else None, repeated=True)


def _text(delta: Any) -> str | None:
    return json.dumps(delta) if delta else None
