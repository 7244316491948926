"""`append_event`, by ADK's contract: what is written, and what the caller's objects become."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime

import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.sessions.session import Session
from pydantic import BaseModel

from adk_builders import (
    APP,
    USER,
    create_session,
    get_session,
    message_event,
    state_event,
    status_of,
    texts,
)
from adk_versions import since_adk
from lapse.core.lifecycle import HELD_EVENTS, Status

both = pytest.mark.parametrize("make", [message_event, state_event], ids=["message", "state only"])


@both
async def test_the_same_event_is_returned_and_stored(service, make):
    session = await create_session(service)
    event = make(delta={"k": 1})
    assert await service.append_event(session, event) is event
    assert session.events == [event]
    assert (await get_session(service, session.id)).events == [event]


@both
async def test_the_update_time_of_a_session_is_that_of_its_newest_append(service, make):
    session = await create_session(service)
    for moment in (1763800000.123456, 1000.5):
        await service.append_event(session, make(timestamp=moment))
        assert session.last_update_time == moment
        assert (await get_session(service, session.id)).last_update_time == moment


async def test_a_partial_event_changes_nothing_anywhere(service):
    session = await create_session(service, state={"k": 1})
    before = session.model_copy(deep=True)
    event = message_event("hel", partial=True, delta={"k": 2, "temp:t": 1, "app:a": 1})
    assert await service.append_event(session, event) is event
    assert event.actions.state_delta == {"k": 2, "temp:t": 1, "app:a": 1}
    assert session == before
    assert await get_session(service, session.id) == before


async def test_a_partial_event_for_an_unknown_session_is_accepted(service):
    session = Session(app_name=APP, user_id=USER, id="never was")
    event = message_event(partial=True)
    assert await service.append_event(session, event) is event


@both
async def test_an_append_to_an_unknown_session_is_refused(service, make):
    session = Session(app_name=APP, user_id=USER, id="never was")
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, make(delta={"app:a": 1}))
    assert session.events == []
    assert (await create_session(service)).state == {}


@both
async def test_temporary_state_stays_in_the_callers_session_object(service, make):
    session = await create_session(service)
    event = make(delta={"k": 1, "temp:t": 2})
    await service.append_event(session, event)
    assert session.state == {"k": 1, "temp:t": 2}
    assert event.actions.state_delta == {"k": 1}
    after = await get_session(service, session.id)
    assert after.state == {"k": 1}
    assert after.events[0].actions.state_delta == {"k": 1}


@both
async def test_a_state_delta_goes_to_the_scope_that_its_prefix_names(sharing_service, make):
    session = await create_session(sharing_service, state={"k": 0, "app:a": 0, "user:u": 0})
    other = await create_session(sharing_service, session_id="other")
    delta = {"k": 1, "app:a": 1, "user:u": 1}
    await sharing_service.append_event(session, make(delta=delta))
    assert session.state == delta
    assert (await get_session(sharing_service, session.id)).state == delta
    assert (await get_session(sharing_service, other.id)).state == {"app:a": 1, "user:u": 1}
    assert (await create_session(sharing_service, user_id="bob")).state == {"app:a": 1}


@both
async def test_state_is_replaced_key_by_key_and_none_is_stored_as_a_value(service, make):
    initial = {"k": {"old": 1}, "l": 1, "app:a": {"old": 1}, "user:u": {"old": 1}}
    session = await create_session(service, state=initial)
    delta = {"k": {"new": 2}, "l": None, "app:a": {"new": 2}, "user:u": None}
    await service.append_event(session, make(delta=delta))
    after = await get_session(service, session.id)
    assert after.state == delta
    assert after.events[0].actions.state_delta == delta


async def test_the_first_message_moves_earlier_events_and_state_into_adks_tables(service):
    session = await create_session(service, state={"k": 0, "kept": True})
    await service.append_event(session, state_event({"k": 1, "app:a": 1}, id="n1"))
    await service.append_event(session, state_event({"l": 2}, id="n2"))
    await service.append_event(session, message_event(delta={"k": 3}, id="m1"))
    after = await get_session(service, session.id)
    assert [event.id for event in after.events] == ["n1", "n2", "m1"]
    assert after.state == {"k": 3, "l": 2, "kept": True, "app:a": 1}
    assert after == session


async def test_a_message_of_the_agent_makes_a_session_used(lapse):
    session = await create_session(lapse)
    await lapse.append_event(session, message_event("welcome", author="concierge"))
    assert await status_of(lapse, session.id) is Status.USED


async def test_more_events_than_the_lobby_may_hold_make_the_session_used(lapse):
    session = await create_session(lapse)
    for number in range(HELD_EVENTS):
        await lapse.append_event(session, state_event({"n": number}))
    assert await status_of(lapse, session.id) is Status.WAITING
    await lapse.append_event(session, state_event({"n": HELD_EVENTS}))
    assert await status_of(lapse, session.id) is Status.USED
    after = await get_session(lapse, session.id)
    assert [event.actions.state_delta["n"] for event in after.events] == [*range(HELD_EVENTS + 1)]


class Guest(BaseModel):
    name: str
    seats: int = 2


@both
async def test_state_values_are_stored_as_json(database_service, make):
    rich = {
        "model": Guest(name="Ada"),
        "moment": datetime(2026, 11, 22, 8, 30, tzinfo=UTC),
        "day": date(2026, 11, 22),
        "set": {1},
        "tuple": (1, 2),
        "bytes": b"abc",
    }
    plain = {
        "model": {"name": "Ada", "seats": 2},
        "moment": "2026-11-22T08:30:00Z",
        "day": "2026-11-22",
        "set": [1],
        "tuple": [1, 2],
        "bytes": "abc",
    }
    session = await create_session(
        database_service, state={f"initial-{key}": rich[key] for key in rich}
    )
    await database_service.append_event(
        session, make(delta=rich | {"app:guest": Guest(name="Bob")})
    )
    after = await get_session(database_service, session.id)
    assert after.state == {f"initial-{key}": plain[key] for key in plain} | plain | {
        "app:guest": {"name": "Bob", "seats": 2}
    }


def greet():
    """Stand for what JSON cannot say."""


@both
@since_adk("2.5", "an event with such a value cannot be written")
async def test_a_value_that_json_cannot_represent_is_stored_as_its_repr(database_service, make):
    session = await create_session(database_service, state={"f": greet})
    await database_service.append_event(session, make(delta={"g": greet, "l": 1}))
    after = await get_session(database_service, session.id)
    assert "greet" in after.state["f"]
    assert "greet" in after.state["g"]
    assert after.state["l"] == 1


async def test_parallel_appends_through_one_session_are_all_stored(service):
    session = await create_session(service)
    events = [message_event(str(n), delta={f"k{n}": n}, timestamp=1000.0 + n) for n in range(25)]
    await asyncio.gather(*(service.append_event(session, event) for event in events))
    after = await get_session(service, session.id)
    assert texts(after) == [str(n) for n in range(25)]
    assert after.state == session.state == {f"k{n}": n for n in range(25)}
    assert sorted(texts(session), key=int) == texts(after)


async def test_parallel_first_appends_make_one_first_message(lapse):
    session = await create_session(lapse)
    changes = []
    lapse.feed.subscribe(changes.append)
    makers = [message_event if n % 2 else state_event for n in range(20)]
    await asyncio.gather(
        *(lapse.append_event(session, make(timestamp=1000.0 + n)) for n, make in enumerate(makers))
    )
    assert len((await get_session(lapse, session.id)).events) == 20
    assert [str(change.kind) for change in changes] == ["used"]


async def test_an_append_whose_caller_is_cancelled_is_stored_once(lapse):
    session = await create_session(lapse)
    event = message_event()
    waiting = asyncio.create_task(lapse.append_event(session, event))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await lapse.append_event(await get_session(lapse, session.id), event)
    assert (await get_session(lapse, session.id)).events == [event]


@both
@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("event id", {"id": "e" * 129}),
        ("invocation id", {"invocation_id": "i" * 257}),
        ("event timestamp", {"timestamp": 1e20}),
        ("event timestamp", {"timestamp": float("nan")}),
        ("state", {"delta": {"k": float("inf")}}),
        ("event", {"delta": {"k": "half\ud800"}}),
        ("event", {"delta": {"nul\0": 1}}),
    ],
)
async def test_an_event_that_no_store_can_hold_is_refused_and_the_value_named(
    lapse, make, field, fields
):
    session = await create_session(lapse, state={"k": 1})
    before = await get_session(lapse, session.id)
    with pytest.raises(ValueError, match=field):
        await lapse.append_event(session, make(**fields))
    assert await get_session(lapse, session.id) == before
    await lapse.append_event(session, make(delta={"k": 2}))
    assert (await get_session(lapse, session.id)).state == {"k": 2}


async def test_a_writer_who_is_cancelled_while_an_event_is_stored_can_go_on_with_its_session(lapse):
    """ADK's runner does, to note that it was cancelled.

    Seen to fail where the caller leaves at once.
    """
    session = await create_session(lapse)
    appending = asyncio.create_task(lapse.append_event(session, message_event("hi")))
    # A change is published when it is stored, and before the caller hears of it.
    lapse.feed.subscribe(lambda _change: appending.cancel())
    with pytest.raises(asyncio.CancelledError):
        await appending
    assert texts(session) == ["hi"]
    await lapse.append_event(session, message_event("and on"))
    stored = await get_session(lapse, session.id)
    assert texts(stored) == texts(session) == ["hi", "and on"]
