"""Processes that come too late: what they may still do, and what nobody has done before them."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta

import aiosqlite
import pytest
import sqlalchemy
from worlds import BOUNDS, IMPATIENT

from adk_builders import APP, USER, create_session, delete_session, get_session, message_event
from backends import NO_STATE, TTL, levels
from lapse.adk.errors import SessionNotFoundError, StaleSessionError
from lapse.conversations.rules import Token, Where
from lapse.core.errors import OutcomeUnknownError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from lapse.ttl import Outcome
from odd_service import Fault, OddService

KEY = SessionKey(APP, USER, "s1")
LEASE = BOUNDS.lease


async def stored(world, session_id="s1"):
    found = await world.inner.get_session(app_name=APP, user_id=USER, session_id=session_id)
    return None if found is None else [event.id for event in found.events]


class Held:
    """Holds up the first call of a name, before it is done or after."""

    def __init__(self, name, *, done):
        self._name, self._done = name, done
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, name, do):
        if name != self._name or self.reached.is_set():
            return await do()
        done = await do() if self._done else None
        self.reached.set()
        await self.go_on.wait()
        return done if self._done else await do()


async def begun(world, held, **options):
    """Have a process that is held up in the hand-over of `s1`, and its lease over."""
    odd = OddService(world.inner)
    odd.around = held
    process = world.process(odd, **options)
    session = await create_session(process, session_id="s1")
    late = asyncio.create_task(process.append_event(session, message_event("late", id="late")))
    await held.reached.wait()
    world.pass_time()
    return process, session, late


async def test_who_cleans_up_leaves_a_session_that_was_created_meanwhile(worlds):
    """Seen to fail, and to lose the record of a used session, with a clean-up that deletes it."""
    process, held = worlds.process(), Held("claim", done=True)
    session = await create_session(process, session_id="s1")
    process.lobby.doing = held
    late = asyncio.create_task(process.append_event(session, message_event("late", id="late")))
    await held.reached.wait()
    worlds.pass_time()
    other = worlds.process()
    await delete_session(other, "s1")

    async def others_first(name, do):
        if name in {"begin_delete", "reserve"}:
            process.lobby.doing = None
            again = await create_session(other, session_id="s1", state={"anew": True})
            await other.append_event(again, message_event("anew", id="anew"))
        return await do()

    process.lobby.doing = others_first
    held.go_on.set()
    with pytest.raises((SessionNotFoundError, OutcomeUnknownError)):
        await late
    assert process.lobby.doing is None, "it has come to clean up"
    record = await worlds.process().lifecycle(KEY)
    assert (record.status, record.has_messages) == (Status.USED, True)
    assert (await process.hand_overs.store.place(KEY)).where is Where.ELSEWHERE


async def test_who_finds_a_clean_up_that_was_left_removes_nothing_of_others(worlds):
    """Seen to fail where whoever took it over removed whatever had the key."""
    store = worlds.process().hand_overs.store
    assert await store.reserve(KEY, Token.new(), lease=LEASE)
    theirs = await worlds.inner.create_session(app_name=APP, user_id=USER, session_id="s1")
    await worlds.inner.append_event(theirs, message_event("theirs", id="theirs"))
    worlds.pass_time()
    await worlds.process().hand_overs.finish_overdue(10)
    assert await stored(worlds) == ["theirs"]
    assert (await store.place(KEY)).where is Where.NOWHERE


async def test_who_has_lost_a_hand_over_does_not_say_that_nothing_is_stored(world):
    """Seen to fail where the caller was told to come again because nothing was changed."""
    held = Held("create", done=True)
    _, _, late = await begun(world, held, bounds=IMPATIENT)
    taker = OddService(world.inner)
    slow = Held("append", done=False)
    taker.around = slow
    taking = asyncio.create_task(world.process(taker).hand_overs.finish_overdue(10))
    await slow.reached.wait()
    held.go_on.set()
    with pytest.raises(OutcomeUnknownError):
        await late
    slow.go_on.set()
    await taking
    assert await stored(world) == ["late"]


async def test_a_refusal_to_be_read_is_not_told_to_who_has_lost_a_hand_over(world):
    held = Held("create", done=True)
    process, _, late = await begun(world, held)
    await world.process().hand_overs.finish_overdue(10)
    process.conversations.arm("get", Fault.REFUSED)
    held.go_on.set()
    with pytest.raises(OutcomeUnknownError):
        await late
    assert await stored(world) == ["late"]


async def test_a_copy_that_others_have_gone_on_from_is_stale(world):
    """Seen to fail where the late writer's copy passed for one that had seen the others' events."""
    held = Held("append", done=True)
    process, session, late = await begun(world, held)
    other = world.process()
    await other.append_event(await get_session(other, "s1"), message_event("more", id="more"))
    held.go_on.set()
    await late
    with pytest.raises(StaleSessionError):
        await process.append_event(session, message_event("unaware", id="unaware"))
    assert await stored(world) == ["late", "more"]


async def test_a_session_that_is_being_deleted_exists_for_no_reader_and_no_writer(world):
    """Seen to fail where a reader was told to come again, while the list had no such session."""
    service = world.process()
    session = await create_session(service, session_id="s1")
    await service.append_event(session, message_event("hello"))
    world.odd.arm("delete", Fault.AWAY)
    with pytest.raises(OutcomeUnknownError):
        await delete_session(service, "s1")
    other = world.process(bounds=IMPATIENT)
    assert await get_session(other, "s1") is None
    assert (await other.list_sessions(app_name=APP, user_id=USER)).sessions == []
    with pytest.raises(SessionNotFoundError):
        await other.append_event(session, message_event("more"))


def delete_before_the_update(service):
    """Have another process delete every session right before the next append updates its row."""
    left = [True]

    @sqlalchemy.event.listens_for(service.db_engine.sync_engine, "before_cursor_execute")
    def delete(connection, _cursor, statement, *_):
        if statement.startswith("UPDATE sessions") and left:
            left.clear()
            with closing(sqlite3.connect(connection.engine.url.database)) as other, other:
                other.execute("DELETE FROM events")
                other.execute("DELETE FROM sessions")


@pytest.mark.parametrize("worlds", ["sqlite"], indirect=True)
async def test_a_session_that_is_deleted_within_an_append_is_not_found(worlds):
    """Seen to fail with SQLAlchemy's StaleDataError, which ADK lets pass."""
    service = worlds.process()
    session = await create_session(service, session_id="s1")
    await service.append_event(session, message_event("hello"))
    delete_before_the_update(worlds.inner)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, message_event("more"))
    assert await stored(worlds) is None


@pytest.mark.parametrize("worlds", ["file"], indirect=True)
async def test_a_session_that_is_deleted_before_an_append_writes_is_not_found(worlds, monkeypatch):
    """Seen to fail with the IntegrityError of ADK's SqliteSessionService."""
    service = worlds.process()
    session = await create_session(service, session_id="s1")
    await service.append_event(session, message_event("hello"))
    execute = aiosqlite.Connection.execute

    def meeting(connection, sql, *arguments):
        if sql.strip().startswith("INSERT INTO events"):
            with closing(sqlite3.connect(worlds.inner._db_path)) as other, other:
                other.execute("DELETE FROM events")
                other.execute("DELETE FROM sessions")
        return execute(connection, sql, *arguments)

    monkeypatch.setattr(aiosqlite.Connection, "execute", meeting)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, message_event("more"))


@pytest.mark.parametrize("worlds", ["sqlite"], indirect=True)
async def test_what_is_deleted_within_a_hand_over_is_made_again_at_once(worlds):
    """Seen to fail with an outage: the message stood only when somebody came to finish it."""
    service = worlds.process()
    session = await create_session(service, session_id="s1")
    delete_before_the_update(worlds.inner)
    await service.append_event(session, message_event("hello", id="hello"))
    assert await stored(worlds) == ["hello"]


async def test_a_deletion_that_the_service_refuses_is_no_refused_message(world, caplog):
    service = world.process()
    session = await create_session(service, session_id="s1")
    await service.append_event(session, message_event("hello"))
    world.odd.arm("delete", Fault.AWAY, Fault.REFUSED)
    with pytest.raises(OutcomeUnknownError):
        await delete_session(service, "s1")
    world.pass_time()
    await world.process().hand_overs.finish_overdue(10)
    assert "refuses to delete a session" in caplog.text
    assert "first message" not in caplog.text
    assert await get_session(world.process(), "s1") is None
    world.pass_time()
    await world.process().hand_overs.finish_overdue(10)
    assert await stored(world) is None


async def test_a_deletion_that_was_not_begun_observes_nothing(world):
    """Seen to fail on SQLite, where each try observed the session as withdrawn."""
    store = world.store
    await create(world)
    assert await store.at(world.now).guard(KEY, fence=1, lease=LEASE)
    counted = await levels(store.at(world.now))
    for _ in range(3):
        assert await store.at(world.now).begin_delete(KEY, token=Token.new(), lease=LEASE) is None
    assert await levels(store.at(world.now)) == counted
    assert await withdrawn(world) == 0
    await store.at(world.now).unguard(KEY, 1)
    assert await store.at(world.now).begin_delete(KEY, token=Token.new(), lease=LEASE)
    assert await withdrawn(world) == 1


async def test_a_guard_ends_with_its_session(world):
    """Seen to fail with fences that count: the next session's guard had the same."""
    store = world.store
    await create(world)
    first, second = Token.new().fence, Token.new().fence
    assert await store.at(world.now).guard(KEY, fence=first, lease=timedelta(days=9))
    world.now += timedelta(days=3)
    await store.at(world.now).expire_due(10)
    world.now += timedelta(days=3)
    await store.at(world.now).purge_due(10)
    await create(world)
    assert await store.at(world.now).guard(KEY, fence=second, lease=LEASE)
    assert not await store.at(world.now).keep_guard(KEY, first, lease=LEASE)
    await store.at(world.now).unguard(KEY, first)
    assert await store.at(world.now).keep_guard(KEY, second, lease=LEASE)


async def create(world):
    await world.store.at(world.now).create(KEY, state=NO_STATE, ttl=TTL, metadata={})


async def withdrawn(world):
    """Return how often the store has observed that a session was withdrawn."""
    found = await world.store.at(world.now).observed(since=world.now.date())
    return sum(count.sessions for count in found if count.outcome is Outcome.WITHDRAWN)
