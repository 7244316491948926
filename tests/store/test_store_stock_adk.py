"""Lapse and stock ADK on one database: what it wrote, what it sees, and keys that both hold."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai.types import Content, Part
from shared_statements import a_store
from shared_statements import ask as ask_database

from backends import DUE, HOUR, T0, TICK, create, ids, key, levels, message, note, use
from lapse.core.errors import NoSuchSessionError, SessionExistsError, WrongStatusError
from lapse.core.lifecycle import Cause, ChangeKind, Status
from lapse.store.postgres.call import Call
from lapse.sweep.rules import Brake, BrakeReason

OWNER = {"app_name": "app", "user_id": "ann"}
FAR = T0 + timedelta(days=4000)


def words(event_id, text="hi", **state):
    return Event(
        id=event_id,
        author="user",
        content=Content(role="user", parts=[Part(text=text)]) if text else None,
        actions=EventActions(state_delta=state),
    )


async def test_stock_adk_sees_exactly_the_used_sessions_and_all_of_them(store, stock):
    revision = await create(store, "used", state={"a": 1, "app:tone": "dry", "user:name": "Ann"})
    held = await store.at(T0).append(key("used"), note(), revision)
    await store.at(T0).append(key("used"), message(at=T0 + TICK), held.value.revision)
    await create(store, "waiting")
    await create(store, "expired", ttl=TICK)
    await store.at(T0 + TICK).expire_due(10)
    listed = await stock.list_sessions(**OWNER)
    assert [session.id for session in listed.sessions] == ["used"]
    found = await stock.get_session(**OWNER, session_id="used")
    assert [event.id for event in found.events] == ["n1", "m1"]
    assert found.state == {"a": 1, "noted": "n1", "app:tone": "dry", "user:name": "Ann"}
    assert datetime.fromtimestamp(found.last_update_time, UTC) == T0 + TICK
    assert await stock.get_session(**OWNER, session_id="waiting") is None


async def test_stock_adk_and_lapse_append_to_one_session_in_turn(store, stock):
    revision = await use(store)
    session = await stock.get_session(**OWNER, session_id="s1")
    await stock.append_event(session, words("stock", topic="tea"))
    found = await store.at(T0).read(key())
    assert [event.id for event in found.events][-1:] == ["m1"]
    assert {event.id for event in found.events} == {"m1", "stock"}
    assert found.state == {"topic": "tea"}
    assert found.revision.update_time != revision.update_time
    await store.at(T0).append(key(), message("m2", at=T0 + TICK), found.revision)
    found = await stock.get_session(
        **OWNER, session_id="s1", config=GetSessionConfig(num_recent_events=1)
    )
    assert [event.id for event in found.events] == ["m2"]


async def test_a_session_that_stock_adk_wrote_can_be_read_listed_and_appended_to(store, stock):
    session = await stock.create_session(**OWNER, session_id="s1", state={"a": 1, "app:b": 2})
    await stock.append_event(session, words("stock", user=1))
    found = await store.at(FAR).read(key())
    assert found.state == {"a": 1, "app:b": 2, "user": 1}
    assert [event.id for event in found.events] == ["stock"]
    stored = json.loads(found.events[0].data)
    assert stored["content"]["parts"] == [{"text": "hi"}]
    assert await ids(store, FAR) == await ids(store, FAR, None) == ["s1"]
    appended = await store.at(FAR).append(key(), message("m", at=FAR), found.revision)
    assert appended.changes == ()
    again = await stock.get_session(**OWNER, session_id="s1")
    assert [event.id for event in again.events] == ["stock", "m"]


async def test_a_session_of_stock_adk_is_used_if_it_has_a_message_and_else_an_orphan(store, stock):
    session = await stock.create_session(**OWNER, session_id="s1")
    orphan = await store.at(FAR).lifecycle(key())
    assert (orphan.status, orphan.first_message_at) == (Status.ORPHAN, None)
    await stock.append_event(session, words("n", text=None, a=1))
    assert (await store.at(FAR).lifecycle(key())).status is Status.ORPHAN
    event = words("m")
    await stock.append_event(session, event)
    used = await store.at(FAR).lifecycle(key())
    assert used.status is Status.USED
    assert used.first_message_at == datetime.fromtimestamp(event.timestamp, UTC)
    for record in (orphan, used):
        assert record.created_at == orphan.created_at
        assert (record.ttl, record.expires_at, record.restorable_until) == (None, None, None)
        assert (record.resurrections, record.metadata) == (0, {})


async def test_an_orphan_is_never_swept_and_refuses_changes_of_its_lifecycle(store, stock):
    await stock.create_session(**OWNER, session_id="s1")
    assert (await store.at(FAR).expire_due(10)).value == 0
    assert (await store.at(FAR).purge_due(10)).value == 0
    assert await levels(store) == {}
    for ask in (
        store.at(FAR).extend(key()),
        store.at(FAR).amend(key(), ttl=timedelta(hours=1)),
        store.at(FAR).amend(key(), metadata={"a": 1}),
    ):
        with pytest.raises(WrongStatusError, match="orphan"):
            await ask
    with pytest.raises(WrongStatusError, match="no record of it"):
        await store.at(FAR).amend(key(), metadata={"a": 1})
    outcome = await store.at(FAR).resurrect(key(), cause=Cause.REQUEST)
    assert (outcome.changes, outcome.value.status) == ((), Status.ORPHAN)
    with pytest.raises(SessionExistsError):
        await create(store, now=FAR)
    found = await store.at(FAR).read(key())
    await store.at(FAR).append(key(), note(at=FAR), found.revision)
    assert await ids(store, FAR) == ["s1"]


async def test_an_orphan_is_deleted_like_any_session(store, stock):
    await stock.create_session(**OWNER, session_id="s1")
    (change,) = (await store.at(FAR).delete(key())).changes
    assert (change.kind, change.record.status) == (ChangeKind.DELETED, Status.ORPHAN)
    assert await stock.get_session(**OWNER, session_id="s1") is None


async def test_a_delete_by_stock_adk_removes_the_record_in_the_store(store, stock):
    revision = await use(store)
    await stock.delete_session(**OWNER, session_id="s1")
    assert await store.at(T0).read(key()) is None
    assert await store.at(T0).lifecycle(key()) is None
    assert await levels(store) == {}
    with pytest.raises(NoSuchSessionError):
        await store.at(T0).append(key(), message("late"), revision)


async def test_a_lobby_row_whose_key_stock_adk_also_created_is_kept_and_visible(store, stock):
    await create(store)
    session = await stock.create_session(**OWNER, session_id="s1", state={"of": "stock"})
    await stock.append_event(session, words("stock"))
    assert (await store.at(DUE).lifecycle(key())).status is Status.USED
    assert (await store.at(DUE).read(key())).state == {"of": "stock"}
    assert await ids(store, DUE) == await ids(store, DUE, None) == ["s1"]
    (change,) = (await store.at(DUE).expire_due(10)).changes
    assert (change.kind, change.record.status) == (ChangeKind.KEPT, Status.USED)
    assert (await store.at(FAR).expire_due(10)).value == 0
    assert (await store.at(FAR).purge_due(10)).value == 0
    assert await levels(store) == {("app", Status.USED): 1}
    counts = (await store.at(FAR).overview(since=FAR - T0)).counts
    assert {one.kind: one.sessions for one in counts} == {ChangeKind.CREATED: 1, ChangeKind.KEPT: 1}
    found = await store.at(FAR).read(key())
    assert [event.id for event in found.events] == ["stock"]
    await store.at(FAR).append(key(), message("m", at=FAR), found.revision)
    assert await ids(store, FAR) == ["s1"]


@pytest.mark.parametrize("horizon", [timedelta(0), HOUR])
async def test_a_brake_holds_up_a_lobby_row_that_is_kept_as_it_does_others(
    open_store, stock, horizon
):
    """Where what expires is restorable a brake holds up purges, and no expiry."""
    store = await open_store(horizon=horizon)
    await create(store)
    await stock.create_session(**OWNER, session_id="s1")
    await store.at(DUE).set_brake(Brake(BrakeReason.SHARE, DUE, DUE + HOUR, sessions=3))
    changes = (await store.at(DUE).expire_due(10)).changes
    assert [change.kind for change in changes] == ([ChangeKind.KEPT] if horizon else [])


async def test_a_batch_never_expires_more_rows_because_some_became_used(store, stock):
    for number in range(3):
        await create(store, f"s{number}", now=T0 + number * TICK)
        await stock.create_session(**OWNER, session_id=f"s{number}")
    kinds = []
    for _ in range(4):
        kinds += [change.kind for change in (await store.at(FAR).expire_due(1)).changes]
    assert kinds == [ChangeKind.KEPT] * 3
    assert await ids(store, FAR) == ["s0", "s1", "s2"]


async def test_a_message_reaches_the_session_of_stock_adk_that_shares_a_lobby_row(store, stock):
    await create(store)
    await stock.create_session(**OWNER, session_id="s1")
    found = await store.at(T0).read(key())
    await store.at(DUE).append(key(), message(at=FAR), found.revision)
    again = await stock.get_session(**OWNER, session_id="s1")
    assert [event.id for event in again.events] == ["m1"]
    assert [change.kind for change in (await store.at(DUE).expire_due(10)).changes] == [
        ChangeKind.KEPT
    ]
    assert (await store.at(FAR).read(key())).events[0].id == "m1"


async def test_the_session_of_stock_adk_outlives_the_tombstone_of_its_key(store, stock):
    await create(store)
    await store.at(DUE).expire_due(10)
    await stock.create_session(**OWNER, session_id="s1")
    assert (await store.at(DUE).resurrect(key(), cause=Cause.REQUEST)).changes == ()
    assert (await store.at(DUE).lifecycle(key())).status is Status.ORPHAN
    await store.at(FAR).purge_due(10)
    assert await ids(store, FAR) == ["s1"]
    assert await stock.get_session(**OWNER, session_id="s1") is not None


async def test_on_postgres_what_stock_adk_creates_during_a_delete_stays(monkeypatch):
    """Its key is free once the record is deleted. Seen to fail without the time of creation."""
    rows = Call._rows

    async def meeting(self, name, key, params):
        if name == "delete_session":
            row = "('app', 'ann', 's1', '{}', '2029-01-01', '2029-01-01')"
            await ask_database(url, f"INSERT INTO sessions VALUES {row}")
        return await rows(self, name, key, params)

    monkeypatch.setattr(Call, "_rows", meeting)
    async with a_store() as (url, store):
        await create(store)
        await store.at(T0).delete(key())
        assert (await store.at(T0).lifecycle(key())).status is Status.ORPHAN
