"""The first message and those after it; the events that are held until then."""

import json
from datetime import timedelta

import pytest

from backends import DUE, T0, TICK, TTL, create, ids, key, message, note, use
from lapse.documents import StateDelta
from lapse.errors import InvalidValueError, NoSuchSessionError
from lapse.lifecycle import HELD_BYTES, HELD_EVENTS, Cause, Change, ChangeKind, Lifecycle, Status
from lapse.store import EventRecord, NewEvent, Revision

EVENTS = "SELECT id, event_data FROM events WHERE session_id = 's1' ORDER BY timestamp, id"
SESSIONS = "SELECT id, state, create_time, update_time FROM sessions"


async def test_the_first_message_makes_the_session_used_and_says_so_exactly(store):
    revision = await create(store, metadata={"kind": "canonical-session"})
    at = T0 + timedelta(minutes=3)
    appended = await store.append(key(), message(at=at), revision, now=at)
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
    assert appended.revision == Revision(at, 1)
    assert not appended.repeated
    assert await store.lifecycle(key(), now=at) == record


async def test_later_messages_change_nothing_of_the_life(store):
    revision = await use(store)
    before = await store.lifecycle(key(), now=T0)
    appended = await store.append(key(), message("m2", at=T0 + TICK), revision, now=T0 + TICK)
    assert appended.changes == ()
    assert await store.lifecycle(key(), now=T0 + TICK) == before


async def test_a_message_carries_state_of_all_scopes(store):
    revision = await create(store, state={"a": 1, "box": {"x": 1}})
    delta = {"b": 2, "box": {"y": 2}, "app:tone": "dry", "user:name": None}
    appended = await store.append(key(), message(state=delta), revision, now=T0)
    after = {"a": 1, "b": 2, "box": {"y": 2}, "app:tone": "dry", "user:name": None}
    assert (await store.read(key(), now=T0)).state == after
    await store.append(key(), message("m2", state={"b": None}), appended.revision, now=T0)
    assert (await store.read(key(), now=T0)).state == after | {"b": None}


def loaded(value):
    """Return a JSON document, which stock ADK's driver has read already on some databases."""
    return json.loads(value) if isinstance(value, str) else value


async def test_no_session_reaches_the_tables_of_adk_before_its_first_message(store, stock):
    revision = await create(store, state={"a": 1})
    appended = await store.append(key(), note(), revision, now=T0)
    assert await stock.rows(SESSIONS) == []
    assert await stock.rows("SELECT * FROM events") == []
    await store.append(key(), message(at=T0 + TICK), appended.revision, now=T0 + TICK)
    (session,) = await stock.rows(SESSIONS)
    assert session["id"] == "s1"
    assert loaded(session["state"]) == {"a": 1, "noted": "n1"}


async def test_held_events_move_in_order_and_to_the_letter(backend, store, stock):
    as_kept = str if backend.exact else json.loads
    revision = await create(store)
    texts = {
        "n1": '{"id": "n1", "odd":  "spaces",\n "e\\u0301": "\\ud83d\\ude00", "n": 1e2}',
        "n2": '{"z": 1, "a": 2, "z2": [1.0, 1], "quote": "\\"\\\\"}',
    }
    for number, (name, text) in enumerate(texts.items()):
        record = EventRecord(name, f"e-{name}", T0 + number * TICK, text)
        event = NewEvent(record, StateDelta(session={name: number}), is_message=False)
        revision = (await store.append(key(), event, revision, now=T0)).revision
    held = await store.read(key(), now=T0)
    kept = {name: as_kept(text) for name, text in texts.items()}
    assert {event.id: as_kept(event.data) for event in held.events} == kept
    last = message(at=T0 + TTL)
    await store.append(key(), last, revision, now=T0)
    rows = await stock.rows(EVENTS)
    assert [(row["id"], row["event_data"]) for row in rows] == [
        *kept.items(),
        ("m1", as_kept(last.record.data)),
    ]
    found = await store.read(key(), now=T0)
    assert [event.id for event in found.events] == ["n1", "n2", "m1"]
    assert [as_kept(event.data) for event in found.events[:2]] == list(kept.values())
    assert found.state == {"n1": 0, "n2": 1}


async def test_state_of_a_held_event_is_seen_at_once(store):
    revision = await create(store, state={"a": 1})
    delta = {"a": 2, "app:tone": "dry", "user:name": "Ann"}
    appended = await store.append(key(), note(state=delta), revision, now=T0)
    assert appended.changes == ()
    await create(store, "s2")
    assert (await store.read(key(), now=T0)).state == delta
    assert (await store.read(key("s2"), now=T0)).state == {"app:tone": "dry", "user:name": "Ann"}
    assert (await store.lifecycle(key(), now=T0)).status is Status.WAITING


async def test_a_held_event_moves_no_deadline(store):
    revision = await create(store)
    await store.append(key(), note(at=DUE), revision, now=DUE - TICK)
    assert (await store.lifecycle(key(), now=DUE - TICK)).expires_at == DUE


async def test_as_many_events_as_may_be_are_held_and_one_more_counts_as_use(store):
    revision = await create(store)
    for number in range(HELD_EVENTS):
        event = note(f"n{number:03}", at=T0 + number * TICK)
        appended = await store.append(key(), event, revision, now=T0)
        assert appended.changes == ()
        revision = appended.revision
    last = await store.append(key(), note("n999", at=T0 + TTL), revision, now=T0)
    assert [change.kind for change in last.changes] == [ChangeKind.USED]
    found = await store.read(key(), now=T0)
    assert [event.id for event in found.events] == [
        *(f"n{number:03}" for number in range(HELD_EVENTS)),
        "n999",
    ]
    assert (await store.expire_due(10, now=DUE)).taken == 0
    assert (await store.lifecycle(key(), now=DUE)).status is Status.USED


async def test_more_bytes_of_events_than_may_be_held_count_as_use(store):
    revision = await create(store)
    half = "x" * (HELD_BYTES // 2 - 1024)
    for name in ("n1", "n2"):
        event = note(name, state={"big": half})
        appended = await store.append(key(), event, revision, now=T0)
        assert appended.changes == ()
        revision = appended.revision
    last = await store.append(key(), note("n3", state={"big": "x" * 4096}), revision, now=T0)
    assert [change.kind for change in last.changes] == [ChangeKind.USED]
    assert [event.id for event in (await store.read(key(), now=T0)).events] == ["n1", "n2", "n3"]


async def test_a_single_event_over_the_limit_counts_as_use(store):
    revision = await create(store)
    event = note(state={"big": "x" * HELD_BYTES})
    appended = await store.append(key(), event, revision, now=T0)
    assert [change.kind for change in appended.changes] == [ChangeKind.USED]
    assert (await store.read(key(), now=T0)).state == {"big": "x" * HELD_BYTES}


async def test_an_expired_session_comes_back_with_a_message_and_keeps_what_it_held(store):
    revision = await create(store, state={"a": 1}, metadata={"m": 1})
    revision = (await store.append(key(), note(), revision, now=T0)).revision
    await store.expire_due(10, now=DUE)
    at = DUE + TTL
    appended = await store.append(key(), message(at=at), revision, now=at)
    resurrected, used = appended.changes
    assert (resurrected.kind, resurrected.cause, resurrected.at) == (
        ChangeKind.RESURRECTED,
        Cause.MESSAGE,
        at,
    )
    assert (used.kind, used.cause, used.at) == (ChangeKind.USED, None, at)
    record = await store.lifecycle(key(), now=at)
    assert resurrected.record == used.record == record
    assert (record.status, record.resurrections, record.first_message_at) == (Status.USED, 1, at)
    assert (record.created_at, record.metadata) == (T0, {"m": 1})
    assert (record.expires_at, record.expired_at, record.restorable_until) == (None, None, None)
    found = await store.read(key(), now=at)
    assert [event.id for event in found.events] == ["n1", "m1"]
    assert found.state == {"a": 1, "noted": "n1"}
    assert await ids(store, at) == ["s1"]


async def test_a_state_event_brings_no_expired_session_back(store):
    revision = await create(store)
    await store.expire_due(10, now=DUE)
    with pytest.raises(NoSuchSessionError):
        await store.append(key(), note(state={"app:leaked": 1}), revision, now=DUE)
    assert (await store.lifecycle(key(), now=DUE)).status is Status.EXPIRED
    await create(store, "s2", now=DUE)
    assert (await store.read(key("s2"), now=DUE)).state == {}


@pytest.mark.parametrize("kind", [note, message])
async def test_nothing_is_appended_to_an_unknown_or_deleted_session(store, kind):
    with pytest.raises(NoSuchSessionError):
        await store.append(key(), kind(), Revision(T0, 0), now=T0)
    for make in (create, use):
        revision = await make(store)
        await store.delete(key(), now=T0)
        with pytest.raises(NoSuchSessionError):
            await store.append(key(), kind("late"), revision, now=T0)
    assert await ids(store, T0) == []


async def test_a_refused_event_leaves_nothing_behind_not_even_what_it_began(store):
    revision = await create(store)
    revision = (await store.append(key(), note("same"), revision, now=T0)).revision
    before = await store.read(key(), now=T0)
    clash = message("same", state={"app:leaked": 1})
    with pytest.raises(InvalidValueError):
        await store.append(key(), clash, revision, now=T0)
    assert await store.read(key(), now=T0) == before
    assert (await store.lifecycle(key(), now=T0)).status is Status.WAITING
    assert (await store.expire_due(10, now=DUE)).taken == 1
