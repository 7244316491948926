"""Reading sessions from PostgreSQL: each in one statement, from one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from lapse.core.documents import merge_state, read_object
from lapse.core.keys import SessionKey
from lapse.store.postgres import values
from lapse.store.postgres.call import Call
from lapse.store.records import EventRecord, EventWindow, JoinedEvents, Revision, SessionRecord

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


async def read(call: Call, window: EventWindow) -> SessionRecord | None:
    """Return a session that ADK can see, with the events of the window; None if there is none."""
    row = await call.first(
        "read",
        after=window.after or _BEGINNING,
        newest=window.newest,
    )
    if row is None:
        return None
    events: Sequence[EventRecord] = ()
    if row["event_text"] is not None:
        events = JoinedEvents(row["event_text"], values.split_events)
    elif row["held_events"] is not None:
        events = tuple(window.of(values.held_events(row["held_events"])))
    state = merge_state(
        read_object(row["state"]),
        read_object(row["app_state"]),
        read_object(row["user_state"]),
    )
    revision = Revision(row["update_time"], row["revision"])
    return SessionRecord(call.key, state, revision, events, awaits_user=row["awaits_user"])


async def list_of_user(call: Call) -> list[SessionRecord]:
    """Return the sessions of the user in the call's key, without events."""
    return _listed(call, await call.run("list_of_user"))


async def list_of_app(call: Call) -> list[SessionRecord]:
    """Return the sessions of all users of the app, without events."""
    return _listed(call, await call.run("list_of_app"))


def _listed(call: Call, found: Iterable[Any]) -> list[SessionRecord]:
    return [
        SessionRecord(
            SessionKey(call.key.app_name, row["user_id"], row["session_id"]),
            merge_state(
                read_object(row["state"]),
                read_object(row["app_state"]),
                read_object(row["user_state"]),
            ),
            Revision(row["update_time"], row["revision"]),
        )
        for row in found
    ]
