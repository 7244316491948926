"""The connection breaks at the commit: a write that may have been done is not called failed."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from watching import eventually

from backends import create, key, message, note
from lapse.core.documents import StateDelta
from lapse.core.errors import OutcomeUnknownError, SessionExistsError
from lapse.core.lifecycle import Rules, Status
from lapse.store.options import ConnectionOptions
from parts import store_with_parts
from postgres import rows
from proxy import proxied

pytestmark = pytest.mark.long

SMALL = ConnectionOptions(pool_size=1, patience=timedelta(seconds=2))
STATE = StateDelta(app={"a": 1}, user={"u": [2.5]}, session={"s": {"deep": None}})
HOUR = timedelta(hours=1)
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


@pytest.fixture
async def behind_proxy(store_url):
    """A store behind a proxy that can lose answers, the proxy, and a store on the same database.

    The statements of a session's life have been used once, so that each is one answer.
    """
    async with proxied(store_url) as (proxy, url):
        store, direct = store_with_parts(url, Rules(), SMALL), store_with_parts(store_url)
        seen = (await make(store, "first")).value.revision
        for event in (note(), message()):
            seen = (await store.append(key("first"), event, seen)).value.revision
        for wanted in (message("m2"), message("m2")):
            await store.append(key("first"), wanted, seen)
        yield store, proxy, direct
        await store.close()
        await direct.close()


async def make(store, name="s1", metadata=None, state=STATE, ttl=HOUR):
    return await store.create(key(name), state=state, ttl=ttl, metadata=metadata or {"k": [1]})


async def test_a_create_whose_answer_is_lost_is_reported_as_done(behind_proxy):
    """Seen to fail with a create that says of its own row that somebody else's is there."""
    store, proxy, direct = behind_proxy
    proxy.arm()
    created = await make(store)
    assert proxy.lost.is_set()
    record = await direct.lifecycle(key())
    assert created.changes[0].record == record
    assert created.changes[0].at == record.created_at
    assert created.value.state == {"s": {"deep": None}, "app:a": 1, "user:u": [2.5]}
    found = await direct.read(key())
    assert (created.value.state, created.value.revision) == (found.state, found.revision)
    appended = await store.append(key(), message(), created.value.revision)
    assert appended.value.revision.number == 1


async def test_a_create_repeated_after_a_lost_connection_never_returns_an_older_session(
    behind_proxy,
):
    """Seen to fail with a create that takes any untouched session of its content for its own."""
    store, proxy, direct = behind_proxy
    await make(direct)
    await asyncio.sleep(0.01)
    proxy.arm()
    with pytest.raises((OutcomeUnknownError, SessionExistsError)):
        await make(store)
    assert proxy.lost.is_set()
    with pytest.raises(SessionExistsError):
        await make(store)


@pytest.mark.parametrize(
    "other", [{"metadata": {"k": 2}}, {"state": StateDelta()}, {"ttl": 2 * HOUR}], ids=str
)
async def test_a_create_repeated_after_a_lost_connection_never_returns_another_session(
    behind_proxy, other
):
    store, proxy, direct = behind_proxy
    proxy.open.clear()
    proxy.arm()
    asked = asyncio.create_task(make(store))
    await proxy.lost.wait()
    await direct.delete(key())
    await make(direct, **other)
    proxy.open.set()
    with pytest.raises(OutcomeUnknownError):
        await asked


async def test_a_create_whose_session_was_used_meanwhile_has_an_unknown_outcome(behind_proxy):
    store, proxy, direct = behind_proxy
    proxy.open.clear()
    proxy.arm()
    asked = asyncio.create_task(make(store))
    await proxy.lost.wait()
    seen = (await direct.read(key())).revision
    await direct.append(key(), message(), seen)
    proxy.open.set()
    with pytest.raises(OutcomeUnknownError):
        await asked
    assert (await direct.lifecycle(key())).status is Status.USED


async def test_a_create_that_is_never_answered_has_an_unknown_outcome(behind_proxy):
    """Seen to fail with a store that calls it unavailable, as if nothing was done."""
    store, proxy, direct = behind_proxy
    proxy.open.clear()
    proxy.arm()
    with pytest.raises(OutcomeUnknownError):
        await make(store)
    assert (await direct.lifecycle(key())).status is Status.WAITING


@pytest.mark.parametrize("event", [note("n1", state={"n": 1}), message("m1", state={"n": 1})])
async def test_an_append_whose_answer_is_lost_is_stored_once(behind_proxy, event):
    """Seen to fail with an append that does not know its own event again."""
    store, proxy, direct = behind_proxy
    seen = (await make(store)).value.revision
    proxy.arm()
    # The first statement is the one that stores the event.
    appended = await store.append(key(), event, replace(seen, waiting=True))
    assert proxy.lost.is_set()
    assert appended.value.repeated
    found = await direct.read(key())
    assert [one.id for one in found.events] == [event.record.id]
    assert found.state["n"] == 1
    assert appended.value.revision == found.revision
    assert found.revision.number == 1
    later = await store.append(key(), message("m2"), appended.value.revision)
    assert later.value.revision.number == 2


async def test_a_second_message_whose_answer_is_lost_is_stored_once(behind_proxy):
    store, proxy, direct = behind_proxy
    seen = (await make(store)).value.revision
    seen = (await store.append(key(), message("m1"), seen)).value.revision
    proxy.arm()
    appended = await store.append(key(), message("m2"), seen)
    assert proxy.lost.is_set()
    found = await direct.read(key())
    assert [one.id for one in found.events] == ["m1", "m2"]
    assert appended.value.revision == found.revision
    assert found.revision.number == 2


async def test_an_append_whose_connection_is_terminated_is_repeated(store_url):
    """The append waits for a lock when its backend is terminated, so it can be repeated."""
    store = store_with_parts(store_url, Rules(), SMALL)
    seen = await create(store)
    async with asyncio.TaskGroup() as group:
        connection = await store.database._connections.connect()
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM lapse_lobby FOR UPDATE")
            asked = group.create_task(store.append(key(), message(), seen))
            await eventually(lambda: rows(store_url, TERMINATE))
        await connection.close()
    assert not asked.result().value.repeated
    assert len((await store.read(key())).events) == 1
    await store.close()


async def test_a_connection_whose_session_was_ended_and_is_still_open_is_replaced(behind_proxy):
    """PostgreSQL says its last word, and hangs up a moment later: a statement comes in between.

    Seen to fail with a store that takes the driver's InternalClientError for a fault of its own.
    """
    store, proxy, direct = behind_proxy
    seen = (await make(store)).value.revision
    await proxy.end_sessions()
    for _ in range(10):  # the loop reads what is there
        await asyncio.sleep(0)
    appended = await store.append(key(), message(), seen)
    assert not appended.value.repeated
    assert len((await direct.read(key())).events) == 1
