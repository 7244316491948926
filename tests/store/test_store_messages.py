"""The first message and those after it; the events that are held until then."""

import json
from datetime import timedelta

import pytest

from backends import DUE, T0, TICK, TTL, create, ids, key, message, note, use
from lapse.core.documents import StateDelta
from lapse.core.errors import InvalidValueError, NoSuchSessionError
from lapse.core.lifecycle import (
    HELD_BYTES,
    HELD_EVENTS,
    Cause,
    Change,
    ChangeKind,
    Lifecycle,
    Status,
)
from lapse.store.records import EventRecord, NewEvent, Revision

EVENTS = "SELECT id, event_data FROM events WHERE session_id = 's1' ORDER BY timestamp, id"
SESSIONS = "SELECT id, state, create_time, update_time FROM sessions"


async def test_the_first_message_makes_the_session_used_and_says_so_exactly(store):
    revision = await create(store, metadata={"kind": "canonical-session"})
    at = T0 + timedelta(minutes=3)
    appended = await store.at(at).append(key(), message(at=at), revision)
    record = Lifecycle(
        key=key(),
        status=Status.USED,
        created_at=T0,
        ttl=TTL,
        first_message_at=at,
        metadata={"kind": "canonical-session"},
    )
    assert appended.changes == (Change(ChangeKind.USED, at, record),)
    assert appended.changes[0].age == timedelta(minutes=3)
    assert appended.value.revision == Revision(at, 1)
    assert not appended.value.repeated
    assert await store.at(at).lifecycle(key()) == record


async def test_later_messages_change_nothing_in_the_lifecycle_record(store):
    revision = await use(store)
    before = await store.at(T0).lifecycle(key())
    appended = await store.at(T0 + TICK).append(key(), message("m2", at=T0 + TICK), revision)
    assert appended.changes == ()
    assert await store.at(T0 + TICK).lifecycle(key()) == before


async def test_a_message_carries_state_of_all_scopes(store):
    revision = await create(store, state={"a": 1, "box": {"x": 1}})
    delta = {"b": 2, "box": {"y": 2}, "app:tone": "dry", "user:name": None}
    appended = await store.at(T0).append(key(), message(state=delta), revision)
    after = {"a": 1, "b": 2, "box": {"y": 2}, "app:tone": "dry", "user:name": None}
    assert (await store.at(T0).read(key())).state == after
    await store.at(T0).append(key(), message("m2", state={"b": None}), appended.value.revision)
    assert (await store.at(T0).read(key())).state == after | {"b": None}


def loaded(value):
    """Return a JSON document, which stock ADK's driver has read already on some databases."""
    return json.loads(value) if isinstance(value, str) else value


async def test_no_session_is_in_adks_tables_before_its_first_message(store, stock):
    revision = await create(store, state={"a": 1})
    appended = await store.at(T0).append(key(), note(), revision)
    assert await stock.rows(SESSIONS) == []
    assert await stock.rows("SELECT * FROM events") == []
    await store.at(T0 + TICK).append(key(), message(at=T0 + TICK), appended.value.revision)
    (session,) = await stock.rows(SESSIONS)
    assert session["id"] == "s1"
    assert loaded(session["state"]) == {"a": 1, "noted": "n1"}


async def test_held_events_move_to_adks_tables_in_order_and_unchanged(backend, store, stock):
    as_kept = str if backend.exact else json.loads
    revision = await create(store)
    texts = {
        "n1": '{"id": "n1", "odd":  "spaces",\n "e\\u0301": "\\ud83d\\ude00", "n": 1e2}',
        "n2": '{"z": 1, "a": 2, "z2": [1.0, 1], "quote": "\\"\\\\"}',
    }
    for number, (name, text) in enumerate(texts.items()):
        record = EventRecord(name, f"e-{name}", T0 + number * TICK, text)
        event = NewEvent(record, StateDelta(session={name: number}), is_message=False)
        revision = (await store.at(T0).append(key(), event, revision)).value.revision
    held = await store.at(T0).read(key())
    kept = {name: as_kept(text) for name, text in texts.items()}
    assert {event.id: as_kept(event.data) for event in held.events} == kept
    last = message(at=T0 + TTL)
    await store.at(T0).append(key(), last, revision)
    rows = await stock.rows(EVENTS)
    assert [(row["id"], row["event_data"]) for row in rows] == [
        *kept.items(),
        ("m1", as_kept(last.record.data)),
    ]
    found = await store.at(T0).read(key())
    assert [event.id for event in found.events] == ["n1", "n2", "m1"]
    assert [as_kept(event.data) for event in found.events[:2]] == list(kept.values())
    assert found.state == {"n1": 0, "n2": 1}


async def test_the_state_of_a_held_event_is_visible_at_once(store):
    revision = await create(store, state={"a": 1})
    delta = {"a": 2, "app:tone": "dry", "user:name": "Ann"}
    appended = await store.at(T0).append(key(), note(state=delta), revision)
    assert appended.changes == ()
    await create(store, "s2")
    assert (await store.at(T0).read(key())).state == delta
    assert (await store.at(T0).read(key("s2"))).state == {"app:tone": "dry", "user:name": "Ann"}
    assert (await store.at(T0).lifecycle(key())).status is Status.WAITING


async def test_a_held_event_moves_no_deadline(store):
    revision = await create(store)
    await store.at(DUE - TICK).append(key(), note(at=DUE), revision)
    assert (await store.at(DUE - TICK).lifecycle(key())).expires_at == DUE


async def test_the_lobby_holds_events_up_to_a_limit_and_one_more_makes_the_session_used(store):
    revision = await create(store)
    for number in range(HELD_EVENTS):
        event = note(f"n{number:03}", at=T0 + number * TICK)
        appended = await store.at(T0).append(key(), event, revision)
        assert appended.changes == ()
        revision = appended.value.revision
    last = await store.at(T0).append(key(), note("n999", at=T0 + TTL), revision)
    assert [change.kind for change in last.changes] == [ChangeKind.USED]
    found = await store.at(T0).read(key())
    assert [event.id for event in found.events] == [
        *(f"n{number:03}" for number in range(HELD_EVENTS)),
        "n999",
    ]
    assert (await store.at(DUE).expire_due(10)).value == 0
    assert (await store.at(DUE).lifecycle(key())).status is Status.USED


async def test_held_events_over_the_limit_of_bytes_make_the_session_used(store):
    revision = await create(store)
    half = "x" * (HELD_BYTES // 2 - 1024)
    for name in ("n1", "n2"):
        event = note(name, state={"big": half})
        appended = await store.at(T0).append(key(), event, revision)
        assert appended.changes == ()
        revision = appended.value.revision
    last = await store.at(T0).append(key(), note("n3", state={"big": "x" * 4096}), revision)
    assert [change.kind for change in last.changes] == [ChangeKind.USED]
    assert [event.id for event in (await store.at(T0).read(key())).events] == ["n1", "n2", "n3"]


async def test_a_single_event_over_the_limit_makes_the_session_used(store):
    revision = await create(store)
    event = note(state={"big": "x" * HELD_BYTES})
    appended = await store.at(T0).append(key(), event, revision)
    assert [change.kind for change in appended.changes] == [ChangeKind.USED]
    assert (await store.at(T0).read(key())).state == {"big": "x" * HELD_BYTES}


async def test_a_message_resurrects_an_expired_session_with_its_held_events(store):
    revision = await create(store, state={"a": 1}, metadata={"m": 1})
    revision = (await store.at(T0).append(key(), note(), revision)).value.revision
    await store.at(DUE).expire_due(10)
    at = DUE + TTL
    appended = await store.at(at).append(key(), message(at=at), revision)
    resurrected, used = appended.changes
    assert (resurrected.kind, resurrected.cause, resurrected.at) == (
        ChangeKind.RESURRECTED,
        Cause.MESSAGE,
        at,
    )
    assert (used.kind, used.cause, used.at) == (ChangeKind.USED, None, at)
    record = await store.at(at).lifecycle(key())
    assert resurrected.record == used.record == record
    assert (record.status, record.resurrections, record.first_message_at) == (Status.USED, 1, at)
    assert (record.created_at, record.metadata) == (T0, {"m": 1})
    assert (record.expires_at, record.expired_at, record.restorable_until) == (None, None, None)
    found = await store.at(at).read(key())
    assert [event.id for event in found.events] == ["n1", "m1"]
    assert found.state == {"a": 1, "noted": "n1"}
    assert await ids(store, at) == ["s1"]


async def test_a_state_event_does_not_resurrect_an_expired_session(store):
    revision = await create(store)
    await store.at(DUE).expire_due(10)
    with pytest.raises(NoSuchSessionError):
        await store.at(DUE).append(key(), note(state={"app:leaked": 1}), revision)
    assert (await store.at(DUE).lifecycle(key())).status is Status.EXPIRED
    await create(store, "s2", now=DUE)
    assert (await store.at(DUE).read(key("s2"))).state == {}


@pytest.mark.parametrize("kind", [note, message])
async def test_nothing_is_appended_to_an_unknown_or_deleted_session(store, kind):
    with pytest.raises(NoSuchSessionError):
        await store.at(T0).append(key(), kind(), Revision(T0, 0))
    for make in (create, use):
        revision = await make(store)
        await store.at(T0).delete(key())
        with pytest.raises(NoSuchSessionError):
            await store.at(T0).append(key(), kind("late"), revision)
    assert await ids(store, T0) == []


async def test_a_refused_event_leaves_nothing_behind(store):
    revision = await create(store)
    revision = (await store.at(T0).append(key(), note("same"), revision)).value.revision
    before = await store.at(T0).read(key())
    clash = message("same", state={"app:leaked": 1})
    with pytest.raises(InvalidValueError):
        await store.at(T0).append(key(), clash, revision)
    assert await store.at(T0).read(key()) == before
    assert (await store.at(T0).lifecycle(key())).status is Status.WAITING
    assert (await store.at(DUE).expire_due(10)).value == 1
