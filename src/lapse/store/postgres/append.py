"""Appending an event in PostgreSQL: to ADK's tables, to the lobby, or out of the lobby."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

from lapse.core.lifecycle import HELD_BYTES, HELD_EVENTS, Cause, Change, ChangeKind
from lapse.store.postgres import values
from lapse.store.postgres.call import Call
from lapse.store.records import (
    Appended,
    LastSeen,
    NewEvent,
    Result,
    Revision,
    held_events_full,
    lifecycle_of,
)

_BOUNDS: Final = {"most_events": HELD_EVENTS, "most_bytes": HELD_BYTES}

_Step = Callable[[Call, NewEvent, dict[str, Any]], Awaitable[Result[Appended] | None]]


async def append(call: Call, event: NewEvent, seen: Revision | LastSeen) -> Result[Appended] | None:
    """Append one event; None if no place takes it. See `Conversations.append`.

    `seen` tells where the session is, so that one statement is usually enough.
    """
    params = values.append_params(event, seen)
    for step in _steps(seen):
        appended = await step(call, event, params)
        if appended is not None:
            return appended
    return None


async def hold(call: Call, event: NewEvent, seen: Revision | LastSeen) -> Result[Appended] | bool:
    """Hold one event in the lobby. See `HandOverStore.hold`."""
    params = values.append_params(event, seen)
    found = None if event.is_message else await _held(call, event, params)
    if found is None and event.by_agent:
        found = await _words(call, event, params)
    return await _is_full(call, event) if found is None else found


def _steps(seen: Revision | LastSeen) -> tuple[_Step, ...]:
    """Return the places to try, in order.

    A message moves a session out of the lobby, and an adoption moves it in: trying the lobby first
    and last cannot miss it. A session whose exact revision is known is in the lobby after the
    tables have not had it, or it has changed.
    """
    if isinstance(seen, Revision) and seen.number is not None and not seen.waiting:
        return (_to_tables, _to_lobby)
    return (_to_lobby, _to_tables, _to_lobby)


async def _to_tables(
    call: Call, event: NewEvent, params: dict[str, Any]
) -> Result[Appended] | None:
    row = await call.first("append", **params)
    if row is None:
        return None
    return Result(Appended(Revision(event.record.timestamp, row["revision"])))


async def _to_lobby(call: Call, event: NewEvent, params: dict[str, Any]) -> Result[Appended] | None:
    found = await (_first_message if event.is_message else _held)(call, event, params)
    if found is None and event.by_agent:
        found = await _words(call, event, params)
    if found is not None or (event.is_message and not event.by_agent):
        return found
    return await _too_much(call, event, params)


async def _held(call: Call, event: NewEvent, params: dict[str, Any]) -> Result[Appended] | None:
    row = await call.first("hold_event", **params, event=values.held_text(event.record), **_BOUNDS)
    if row is None:
        return None
    revision = Revision(event.record.timestamp, row["revision"])
    return Result(Appended(revision))


async def _words(call: Call, event: NewEvent, params: dict[str, Any]) -> Result[Appended] | None:
    """Hold an event of the agent, in a session that only the user's message makes used."""
    row = await call.first(
        "hold_words",
        **params,
        event=values.held_text(event.record),
        is_message=event.is_message,
        **_BOUNDS,
    )
    if row is None:
        return None
    appended = Appended(Revision(event.record.timestamp, row["revision"]))
    if not row["was_expired"]:
        return Result(appended)
    record = lifecycle_of(row, call.rules)
    change = Change(ChangeKind.RESURRECTED, row["now"], record, Cause.RUN)
    return Result(appended, (change,))


async def _too_much(call: Call, event: NewEvent, params: dict[str, Any]) -> Result[Appended] | None:
    """Let an event that the lobby can hold no more make the session used, or refuse it.

    None: that is not why the event was not held.
    """
    if not await _is_full(call, event):
        return None
    return await _first_message(call, event, params, counts=True)


async def _is_full(call: Call, event: NewEvent) -> bool:
    """Return whether an event was not held because the lobby holds as much as it may.

    Raises:
        HeldEventsFullError: so it is, and the event may not make the session used.
    """
    held = await call.first(
        "has_room_to_hold",
        event=values.held_text(event.record),
        by_agent=event.by_agent,
        **_BOUNDS,
    )
    if held is None or held["has_room"] or not held["may_be_taken"]:
        return False
    if not event.may_use:
        raise held_events_full(call.key)
    return True


async def _first_message(
    call: Call, event: NewEvent, params: dict[str, Any], *, counts: bool = False
) -> Result[Appended] | None:
    try:
        async with call.savepoint():
            row = await call.first(
                "first_message",
                **params,
                counts=counts or not event.by_agent,
                in_control=call.key.in_control_group,
            )
    except asyncpg.UniqueViolationError:
        # Stock ADK has created a session of this key meanwhile; `Conversations` will find out.
        return None
    if row is None:
        return None
    moment, record = row["now"], lifecycle_of(row, call.rules)
    used = Change(ChangeKind.USED, moment, record)
    resurrected = Change(ChangeKind.RESURRECTED, moment, record, Cause.MESSAGE)
    return Result(
        Appended(Revision(event.record.timestamp, row["revision"])),
        (resurrected, used) if row["was_expired"] else (used,),
    )
