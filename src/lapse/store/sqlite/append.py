"""Appending an event in SQLite: to ADK's tables, to the lobby, or with a move out of the lobby."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from lapse.core.documents import update_document
from lapse.core.lifecycle import HELD_BYTES, HELD_EVENTS, Cause, Change, ChangeKind, Status
from lapse.store.records import (
    Appended,
    LastSeen,
    NewEvent,
    Result,
    Revision,
    held_events_full,
    lifecycle_of,
)
from lapse.store.sqlite import values
from lapse.store.sqlite.transaction import Transaction

_BOUNDS: Final = {"most_events": HELD_EVENTS, "most_bytes": HELD_BYTES}


@dataclass(frozen=True, slots=True)
class Append:
    """An event to append, with the parameters that its statements share."""

    event: NewEvent
    waiting: bool
    """Whether the session is probably in the lobby."""
    params: dict[str, Any]

    @classmethod
    def of(cls, event: NewEvent, seen: Revision | LastSeen) -> Append:
        """Return the append of an event to a session that the writer saw as `seen`."""
        record = event.record
        params = values.event_params(record) | {
            "delta": _text(event.delta.session),
            "app_delta": _text(event.delta.app),
            "user_delta": _text(event.delta.user),
            "exact": isinstance(seen, Revision),
            "seen_time": values.to_text(seen.update_time),
            "seen_number": seen.number if isinstance(seen, Revision) else None,
            "seen_event": seen.last_event_id if isinstance(seen, LastSeen) else None,
            "by_agent": event.by_agent,
        }
        waiting = isinstance(seen, Revision) and seen.waiting
        return cls(event, waiting, params)

    @property
    def held(self) -> str:
        """Return the event as the lobby holds it."""
        return values.held_text(self.event.record)

    def revision(self, number: int) -> Revision:
        """Return the session's revision after the append."""
        return Revision(self.event.record.timestamp, number)


def append(
    transaction: Transaction, event: NewEvent, seen: Revision | LastSeen
) -> Result[Appended] | None:
    """Append one event; None if no place takes it. See `Conversations.append`.

    A session is in one place only, so the order of the places matters for speed alone.
    """
    step = Append.of(event, seen)
    places = (_to_lobby, _to_tables) if step.waiting else (_to_tables, _to_lobby)
    for place in places:
        appended = place(transaction, step)
        if appended is not None:
            return appended
    return None


def hold(
    transaction: Transaction, event: NewEvent, seen: Revision | LastSeen
) -> Result[Appended] | bool:
    """Hold one event in the lobby. See `HandOverStore.hold`."""
    step = Append.of(event, seen)
    found = None if event.is_message else _held(transaction, step)
    if found is None and event.by_agent:
        found = _words(transaction, step)
    return _is_full(transaction, step) if found is None else found


def _update_shared_state(transaction: Transaction, step: Append) -> None:
    """Apply a change of app and user state."""
    for statement, delta in (
        ("update_app_state", "app_delta"),
        ("update_user_state", "user_delta"),
    ):
        if step.params[delta] is not None:
            transaction.run(statement, delta=step.params[delta])


def _to_tables(transaction: Transaction, step: Append) -> Result[Appended] | None:
    if not transaction.run("append", **step.params).rowcount:
        return None
    transaction.run("touch", **step.params)
    counted = transaction.first("count_append")
    _update_shared_state(transaction, step)
    revision = step.revision(0 if counted is None else counted["revision"])
    return Result(Appended(revision))


def _to_lobby(transaction: Transaction, step: Append) -> Result[Appended] | None:
    event = step.event
    found = (_first_message if event.is_message else _held)(transaction, step)
    if found is None and event.by_agent:
        found = _words(transaction, step)
    if found is not None or (event.is_message and not event.by_agent):
        return found
    return _too_much(transaction, step)


def _held(transaction: Transaction, step: Append) -> Result[Appended] | None:
    row = transaction.first("hold_event", **step.params, event=step.held, **_BOUNDS)
    if row is None:
        return None
    _update_shared_state(transaction, step)
    return Result(Appended(step.revision(row["revision"])))


def _words(transaction: Transaction, step: Append) -> Result[Appended] | None:
    """Hold an event of the agent, in a session that only the user's message makes used."""
    before = transaction.first("lifecycle")
    is_message = step.event.is_message
    row = transaction.first(
        "hold_words", **step.params, event=step.held, is_message=is_message, **_BOUNDS
    )
    if row is None or before is None:
        return None
    _update_shared_state(transaction, step)
    appended = Appended(step.revision(row["revision"]))
    if row["resurrections"] == before["resurrections"]:
        return Result(appended)
    _count(transaction, ChangeKind.RESURRECTED, Status(before["status"]), Status.WAITING)
    record = lifecycle_of(values.Found(row, transaction.now), transaction.rules)
    change = Change(ChangeKind.RESURRECTED, transaction.moment, record, Cause.RUN)
    return Result(appended, (change,))


def _too_much(transaction: Transaction, step: Append) -> Result[Appended] | None:
    """Let an event that the lobby can hold no more make the session used, or refuse it.

    None: that is not why the event was not held.
    """
    return _first_message(transaction, step, counts=True) if _is_full(transaction, step) else None


def _is_full(transaction: Transaction, step: Append) -> bool:
    """Return whether an event was not held because the lobby holds as much as it may.

    Raises:
        HeldEventsFullError: so it is, and the event may not make the session used.
    """
    held = transaction.first(
        "has_room_to_hold", event=step.held, by_agent=step.event.by_agent, **_BOUNDS
    )
    if held is None or held["has_room"] or not held["may_be_taken"]:
        return False
    if not step.event.may_use:
        raise held_events_full(transaction.key)
    return True


def _first_message(
    transaction: Transaction, step: Append, *, counts: bool = False
) -> Result[Appended] | None:
    counts = counts or not step.event.by_agent
    lobby = transaction.first("first_message", **step.params, counts=counts)
    if lobby is None:
        return None
    was_expired = lobby["expired_at"] is not None or (
        transaction.rules.enforced and lobby["expires_at"] <= transaction.now
    )
    resurrections = lobby["resurrections"] + was_expired
    was = Status.WAITING if lobby["expired_at"] is None else Status.EXPIRED
    if was_expired:
        _count(transaction, ChangeKind.RESURRECTED, was, Status.WAITING)
        was = Status.WAITING
    _count(transaction, ChangeKind.USED, was, Status.USED)
    transaction.ride(
        "observe_first_message",
        in_control=transaction.key.in_control_group,
        created_at=lobby["created_at"],
        metadata=lobby["metadata"],
    )
    _move(transaction, step, lobby)
    settled = transaction.first("settle_used", resurrections=resurrections)
    assert settled is not None
    record = lifecycle_of(values.Found(settled, transaction.now), transaction.rules)
    used = Change(ChangeKind.USED, transaction.moment, record)
    resurrected = Change(ChangeKind.RESURRECTED, transaction.moment, record, Cause.MESSAGE)
    return Result(
        Appended(step.revision(settled["revision"])),
        (resurrected, used) if was_expired else (used,),
    )


def _count(transaction: Transaction, kind: ChangeKind, was: Status, became: Status) -> None:
    transaction.ride("count", kind=kind, was=was, became=became, sessions=1)


def _move(transaction: Transaction, step: Append, lobby: sqlite3.Row) -> None:
    """Write the session, the events that the lobby held and the message into ADK's tables."""
    delta = step.params["delta"]
    transaction.run(
        "move_session",
        state=lobby["state"] if delta is None else update_document(lobby["state"], delta),
        create_time=values.to_text(values.from_micros(lobby["created_at"])),
        event_time=step.params["event_time"],
    )
    for event in (*values.held_events(lobby["held_events"]), step.event.record):
        transaction.run("move_event", **values.event_params(event))
    if not lobby["has_app_state"]:
        transaction.run("ensure_app_state")
    if not lobby["has_user_state"]:
        transaction.run("ensure_user_state")
    _update_shared_state(transaction, step)


def _text(delta: Any) -> str | None:
    return json.dumps(delta) if delta else None
