"""Reading sessions from SQLite; each function runs inside one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lapse.core.documents import merge_state, read_object
from lapse.core.keys import SessionKey
from lapse.store.records import (
    EventRecord,
    EventWindow,
    JoinedEvents,
    Revision,
    SessionRecord,
)
from lapse.store.sqlite import values
from lapse.store.sqlite.transaction import Transaction

_ALL: Final = -1
"""The value of LIMIT that means no limit."""


def read(transaction: Transaction, window: EventWindow) -> SessionRecord | None:
    """Return a session that ADK can see, with the events of the window; None if there is none."""
    head = transaction.first(
        "read",
        after="" if window.after is None else values.to_text(window.after),
        newest=_ALL if window.newest is None else window.newest,
    )
    if head is None:
        return None
    events: Sequence[EventRecord] = ()
    if head["event_text"] is not None:
        events = JoinedEvents(head["event_text"], values.split_events)
    elif head["held_events"] is not None and window.newest != 0:
        events = tuple(window.of(values.held_events(head["held_events"])))
    state = merge_state(
        read_object(head["state"]),
        read_object(head["app_state"]),
        read_object(head["user_state"]),
    )
    revision = Revision(values.from_text(head["update_time"]), head["revision"])
    awaits_user = bool(head["awaits_user"])
    return SessionRecord(transaction.key, state, revision, events, awaits_user=awaits_user)


def list_of_user(transaction: Transaction) -> list[SessionRecord]:
    """Return the sessions of the user in the transaction's key, without events."""
    user_id = transaction.key.user_id
    states = {user_id: values.document_of(transaction.first("read_user_state"))}
    return _listed(transaction, transaction.run("list_of_user"), states)


def list_of_app(transaction: Transaction) -> list[SessionRecord]:
    """Return the sessions of all users of the app, without events."""
    found = transaction.run("list_of_app")
    states = {
        row["user_id"]: values.document_of(row) for row in transaction.run("read_user_states")
    }
    return _listed(transaction, found, states)


def _listed(
    transaction: Transaction, found: Iterable[Any], states: Mapping[str, dict[str, Any]]
) -> list[SessionRecord]:
    app_name = transaction.key.app_name
    app_state = values.document_of(transaction.first("read_app_state"))
    shared = {user_id: merge_state({}, app_state, state) for user_id, state in states.items()}
    of_others = merge_state({}, app_state, {})
    return [
        SessionRecord(
            SessionKey(app_name, user_id, session_id),
            read_object(state) | shared.get(user_id, of_others),
            Revision(values.from_text(update_time), revision),
        )
        for user_id, session_id, state, update_time, revision in found
    ]
