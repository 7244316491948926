"""Appending an event in PostgreSQL: to ADK's tables, to the lobby, or from one into the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from lapse.core.errors import (
    InvalidValueError,
    NoSuchSessionError,
    OutcomeUnknownError,
    OutdatedSessionError,
    StoreUnavailableError,
)
from lapse.core.lifecycle import HELD_BYTES, HELD_EVENTS, Cause, Change, ChangeKind, Status
from lapse.store.postgres import values as rows
from lapse.store.postgres.call import Call
from lapse.store.sessions import Appended, Glimpse, NewEvent, Revision
from lapse.ttl.observed import Kind, is_audited

_Step = Callable[[Call, NewEvent, dict[str, Any]], Awaitable[Appended | None]]


async def append(call: Call, event: NewEvent, seen: Revision | Glimpse) -> Appended:
    """Append one event; see `Store.append`.

    What the writer has seen tells where the session is, so that one statement is enough.
    """
    params = rows.append_params(event, seen)
    for step in _steps(seen):
        appended = await step(call, event, params)
        if appended is not None:
            return appended
    try:
        return await _explain(call, event, params)
    except StoreUnavailableError as error:
        # A repeated statement that found nothing to do may have met its own work.
        raise OutcomeUnknownError(str(error)) from error


def _steps(seen: Revision | Glimpse) -> tuple[_Step, ...]:
    """Return where to try, in order.

    A message moves a session out of the lobby, an adoption into it: who looks there first and
    last cannot miss it. One whose revision is known to be of the lobby is there, or outdated.
    """
    if isinstance(seen, Revision) and seen.number is not None:
        return (_to_lobby,) if seen.waiting else (_to_tables, _to_lobby)
    return (_to_lobby, _to_tables, _to_lobby)


async def _to_tables(call: Call, event: NewEvent, params: dict[str, Any]) -> Appended | None:
    row = await call.first("append", **params)
    if row is None:
        return None
    return Appended(Revision(event.record.timestamp, row["revision"]))


async def _to_lobby(call: Call, event: NewEvent, params: dict[str, Any]) -> Appended | None:
    if not event.is_message:
        row = await call.first(
            "hold_event",
            **params,
            event=rows.held_text(event.record),
            most_events=HELD_EVENTS,
            most_bytes=HELD_BYTES,
        )
        if row is not None:
            revision = Revision(event.record.timestamp, row["revision"], waiting=True)
            return Appended(revision)
        # Too much is held already, which counts as use, or the session has expired.
        if await call.first("read", after=None, newest=0) is None:
            return None
    return await _first_message(call, event, params)


async def _first_message(call: Call, event: NewEvent, params: dict[str, Any]) -> Appended | None:
    try:
        kind = Kind.AUDITED if is_audited(call.key.session_id) else Kind.USED
        row = await call.first("first_message", **params, kind=kind)
    except asyncpg.UniqueViolationError:
        # Stock ADK has created a session of this key meanwhile; the explanation will say so.
        return None
    if row is None:
        return None
    moment, record = row["now"], rows.lobby_record(row, call.rules)
    used = Change(ChangeKind.USED, moment, record)
    resurrected = Change(ChangeKind.RESURRECTED, moment, record, Cause.MESSAGE)
    return Appended(
        Revision(event.record.timestamp, row["revision"]),
        (resurrected, used) if row["was_expired"] else (used,),
    )


async def _explain(call: Call, event: NewEvent, params: dict[str, Any]) -> Appended:
    """Say why no statement took the event: stored before, gone, or outdated."""
    row = await call.first("read_appended", **params)
    if row is None or not (row["is_stored"] or await _would_take(call, event)):
        raise NoSuchSessionError(f"session {call.key.short}… does not exist")
    if row["is_same"] is None:
        raise OutdatedSessionError(f"session {call.key.short}… was changed since it was read")
    if not row["is_same"]:
        reason = (
            f"{event.record.id[:8]}… is another event of this session; give the new one its own"
        )
        raise InvalidValueError("event id", reason)
    stored = Revision(
        rows.from_naive(row["update_time"]), row["revision"], waiting=not row["is_stored"]
    )
    is_newest = stored.update_time == event.record.timestamp
    seen = params["seen_number"]
    alone = seen is None or stored.number in {seen, seen + 1}
    return Appended(stored if is_newest and alone else None, repeated=True)


async def _would_take(call: Call, event: NewEvent) -> bool:
    """Return whether a session in the lobby would take an event that its writer has seen it for."""
    record = await call.lifecycle()
    if record is None:
        return False
    return event.is_message or record.status is not Status.EXPIRED
