"""Acts of services and operators on sessions through ADK's contract, for the audit log."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from lapse.adk.context import revival_cause
from lapse.audit.request import is_recorded, note_recorded
from lapse.audit.store import AuditLog
from lapse.auth.principals import current_deputy
from lapse.core.documents import StateDelta, merge_state, split_state
from lapse.core.keys import SessionKey
from lapse.store.conversations import Conversations
from lapse.store.database import Database
from lapse.store.records import Appended, LastSeen, NewEvent, Result, Revision

_RAN = "ran"
_APPENDED = "appended"
_STATE_CHANGED = "state_changed"


def append(
    store: Database, key: SessionKey, event: NewEvent, seen: Revision | LastSeen
) -> Coroutine[Any, Any, Result[Appended]]:
    """Append an event as `Conversations.append` does; record it if it is a deputy's.

    A deputy is a service or an operator. Of one request only the first event is recorded: a run's
    message stands for the whole run.
    """
    by = current_deputy()
    if by is None or is_recorded(key):
        return Conversations(store).append(key, event, seen)
    return _append_recorded(store, key, event, seen, by)


async def _append_recorded(
    store: Database, key: SessionKey, event: NewEvent, seen: Revision | LastSeen, by: str
) -> Result[Appended]:
    detail = _scopes(event.delta) | ({"message": True} if event.is_message else {})
    appended = await AuditLog(store).append_recorded(
        key, event, seen, by=by, action=_action(key, event), detail=detail
    )
    note_recorded(key)
    return appended


async def record_append(store: Database, key: SessionKey, event: NewEvent) -> None:
    """Record that a deputy has appended an event to a session with another service behind it.

    The other service keeps app and user state among that of the session, so the state is split
    here.
    """
    by = current_deputy()
    if by is None or is_recorded(key):
        return
    delta = event.delta
    event = replace(event, delta=split_state(merge_state(delta.session, delta.app, delta.user)))
    detail = _scopes(event.delta) | ({"message": True} if event.is_message else {})
    await AuditLog(store).record_act(by, _action(key, event), detail, key=key)
    note_recorded(key)


async def record_creation(store: Database, key: SessionKey, state: StateDelta) -> None:
    """Record that a deputy is about to create a session with state that others share.

    The record is written before the session, so it may stand for a creation that was then refused.
    """
    by = current_deputy()
    if by is not None and (state.app or state.user):
        await AuditLog(store).record_act(by, _STATE_CHANGED, _scopes(state), key=key)


def _action(key: SessionKey, event: NewEvent) -> str:
    if revival_cause(key) is not None:
        return _RAN
    return _STATE_CHANGED if _scopes(event.delta) and not event.is_message else _APPENDED


def _scopes(state: StateDelta) -> dict[str, Any]:
    """Return which scopes of state change, as the detail of an act; empty if none does."""
    changed = {"app": state.app, "user": state.user, "session": state.session}
    scopes = [scope for scope, delta in changed.items() if delta]
    return {"state": scopes} if scopes else {}
