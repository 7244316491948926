"""Many records in one read, and announcements of changes between processes."""

import asyncio
from datetime import timedelta

from google.adk.events.event import Event
from google.genai import types

from backends import DUE, HOUR, T0, TICK, create, key, store_at, use
from lapse.core.lifecycle import Cause, Status
from lapse.notices.announcements import Announcements


async def records(store, *names, now=T0):
    return await store_at(store, now).records([key(name) for name in names])


async def test_records_read_together_equal_those_read_one_by_one(store):
    await create(store, "waits", metadata={"title": "one"})
    await use(store, "used")
    await create(store, "expires", now=T0 - HOUR)
    assert (await store.at(T0).expire_due(10)).value == 1
    names = ["waits", "used", "expires", "never-was"]
    found = await records(store, *names)
    assert found.at == T0
    assert set(found.records) == {key(name) for name in names[:3]}
    for name in names[:3]:
        assert found.records[key(name)] == await store.at(T0).lifecycle(key(name))
    assert [found.records[key(name)].status for name in names[:3]] == [
        Status.WAITING,
        Status.USED,
        Status.EXPIRED,
    ]


async def test_a_read_of_no_keys_returns_the_time_alone(store):
    found = await store.at(T0).records([])
    assert (found.at, found.records) == (T0, {})


async def test_a_record_reads_as_expired_at_the_deadline_before_any_sweep(store):
    await create(store)
    (before,) = (await records(store, "s1", now=DUE - TICK)).records.values()
    assert before.status is Status.WAITING
    (after,) = (await records(store, "s1", now=DUE)).records.values()
    assert after.status is Status.EXPIRED


async def test_a_session_past_restoring_or_deleted_has_no_record(store):
    await create(store, "old", now=T0 - timedelta(days=3))
    await store.at(T0 - timedelta(days=2)).expire_due(10)
    await use(store, "gone")
    await store.at(T0).delete(key("gone"))
    assert (await records(store, "old", "gone")).records == {}


async def test_records_come_with_the_time_of_the_store(store):
    created = await create(store, now=None)
    found = await store.records([key()])
    assert timedelta(0) <= found.at - created.update_time < timedelta(minutes=1)


async def test_a_session_of_stock_adk_is_used_or_an_orphan(store, stock):
    for name in ("spoken", "silent"):
        await stock.create_session(app_name="app", user_id="ann", session_id=name)
    session = await stock.get_session(app_name="app", user_id="ann", session_id="spoken")
    words = types.Content(role="user", parts=[types.Part(text="hi")])
    await stock.append_event(session, Event(author="user", content=words))
    found = (await records(store, "spoken", "silent", now=None)).records
    assert found[key("spoken")].status is Status.USED
    assert found[key("silent")].status is Status.ORPHAN


async def test_hundreds_of_keys_are_read_in_one_statement(store):
    names = [f"s{number}" for number in range(300)]
    await asyncio.gather(*(create(store, name, now=T0) for name in names))
    found = await records(store, *names)
    assert len(found.records) == 300
    await store.at(DUE).resurrect(key("s7"), cause=Cause.REQUEST)
    revived = (await records(store, *names, now=DUE)).records
    assert [each.key for each in revived.values() if each.status is Status.WAITING] == [key("s7")]


async def test_announcements_reach_the_other_replicas_and_not_their_sender(backend, two_stores):
    """Seen to fail: without the sender's name in the text; with all digests in one text."""
    one, two = (Announcements(store) for store in two_stores)
    heard = {one: asyncio.Queue(), two: asyncio.Queue()}
    names = [key(f"s{number}") for number in range(900)]
    async with one.listen(heard[one].put_nowait), two.listen(heard[two].put_nowait):
        if backend.name != "postgres":
            # A store without a way to tell lets itself be asked all the same.
            await one.announce(names)
            assert heard[two].empty()
            return
        # A listener has connected once it hears the other.
        for sender, hearer in ((two, one), (one, two)):
            while heard[hearer].empty():
                await sender.announce([key("hello")])
                await asyncio.sleep(0.01)
        await one.announce(names)
        missing = {name.digest for name in names}
        while missing:
            missing -= set(await asyncio.wait_for(heard[two].get(), 20))
        own = {name.digest for name in names}
        while not heard[one].empty():
            assert own.isdisjoint(heard[one].get_nowait())
