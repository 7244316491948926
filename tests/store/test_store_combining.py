"""PostgreSQL does what many callers ask for in one statement, and nobody can tell.

The callers of these tests come at the same time: the first ones have a statement each, and the
others wait for them and share the next one.
"""

import asyncio
from dataclasses import replace

import pytest
from shared_statements import (
    NAMES,
    ONE,
    RULES,
    a_store,
    all_at_once,
    before_creates,
    holding,
    nothing_is_combined,
    together,
)

from backends import NO_STATE, T0, TTL, create, key, levels, message
from contents import contents
from lapse.core.errors import LapseError, OutcomeUnknownError, SessionExistsError
from lapse.core.lifecycle import Status
from lapse.store.postgres import combining
from parts import store_with_parts
from proxy import proxied


async def test_callers_that_share_a_statement_get_what_each_would_get_alone(batches):
    """The results are the same, and so is everything that the database holds afterwards.

    Seen to fail with a `create_many` that does not count, and with one that takes no notice of
    ADK's sessions.
    """
    told, left = [], []
    for alone in (True, False):
        async with a_store() as (url, store):
            await before_creates(url, store)
            if alone:
                with nothing_is_combined():
                    told.append(await all_at_once(store))
                assert batches.keys == []
            else:
                told.append(await all_at_once(store))
                assert sum(batches.done) >= len(NAMES[2:4])
            left.append(await contents(url))
    assert told[0] == told[1]
    assert left[0] == left[1]


async def test_nobody_waits_for_company(batches):
    """One caller, or two at a time, have a statement each.

    Seen to fail with a queue that collects callers for a moment before it asks.
    """
    async with a_store() as (_, store):
        for name in NAMES:
            await create(store, name)
        await together(*(create(store, f"{name} again") for name in NAMES[: combining.LANES]))
        assert batches.keys == []


async def test_two_items_of_one_session_are_never_in_one_statement(batches):
    """Seen to fail with a batch that takes all who wait: two of one key take one place."""
    async with a_store() as (_, store):
        calls = [create(store, name) for name in NAMES for _ in range(3)]
        async with asyncio.timeout(30):
            found = await together(*calls)
        assert batches.keys
        assert all(len(set(keys)) == len(keys) for keys in batches.keys)
        for number in range(len(NAMES)):
            three = found[3 * number : 3 * number + 3]
            refused = [
                one for one in three if isinstance(one, tuple) and one[0] is SessionExistsError
            ]
            assert len(refused) == 2
        assert await levels(store) == {("app", Status.WAITING): len(NAMES)}


async def test_a_batch_is_in_the_order_of_its_keys(batches):
    """Two batches then never wait for each other. Seen to fail with the order of their coming."""
    async with a_store() as (_, store):
        await together(*(create(store, name) for name in reversed(NAMES)))
        assert batches.keys
        assert all(keys == sorted(keys) for keys in batches.keys)


async def test_rows_that_others_hold_hold_up_nobody_else(batches):
    """Some meet an insert that others have not committed: in a lane of their own, and in a batch.

    Seen to fail with lanes that are kept until a statement ends, and with a shared statement that
    waits for a lock as long as it takes.
    """
    held = (NAMES[0], NAMES[1], NAMES[7])
    insert = """
        INSERT INTO lapse_lobby (app_name, user_id, session_id, status, created_at, ttl,
          expires_at, state, held_events, update_time)
        VALUES ('app', 'ann', $1, 'waiting', now(), '1 h', now() + interval '1 h', '{}', '[]',
          now())
    """
    async with a_store() as (url, store):
        async with holding(url, insert, held):
            tasks = {name: asyncio.create_task(create(store, name)) for name in NAMES}
            async with asyncio.timeout(9):  # less than a statement may take
                await asyncio.gather(*(task for name, task in tasks.items() if name not in held))
            assert batches.keys
            assert not any(tasks[name].done() for name in held)
        await asyncio.gather(*tasks.values())
        assert await levels(store) == {("app", Status.WAITING): len(NAMES)}


@pytest.mark.usefixtures("one_lane")
async def test_after_a_broken_connection_each_caller_resolves_its_own_doubt(batches):
    """The statement for many was carried out, and its answer is lost.

    One of its sessions has a message by then: whether its caller made it cannot be known. Seen to
    fail with a broken batch that leaves its callers without doubt: they are told that their
    sessions exist already.
    """
    async with a_store(ONE) as (url, direct), proxied(url) as (proxy, behind):
        store = store_with_parts(behind, RULES, ONE)
        await together(*(create(store, f"{name} before", now=None) for name in NAMES))

        async def lose():
            proxy.open.clear()
            proxy.arm()

        batches.keys.clear()
        batches.before = lose
        asked = [asyncio.create_task(create(store, name, now=None)) for name in NAMES]
        await proxy.lost.wait()
        revision = (await direct.read(key(NAMES[5]))).revision
        await direct.append(key(NAMES[5]), message(), replace(revision))
        proxy.open.set()
        found = await together(*asked)
        assert len(batches.keys) == 1
        failed = [
            (name, one[0]) for name, one in zip(NAMES, found, strict=True) if type(one) is tuple
        ]
        assert failed == [(NAMES[5], OutcomeUnknownError)]
        waiting = 2 * len(NAMES) - 1
        assert await levels(direct) == {("app", Status.WAITING): waiting, ("app", Status.USED): 1}
        await store.close()


@pytest.mark.usefixtures("one_lane")
async def test_a_caller_that_is_cancelled_leaves_the_others_alone(batches):
    """One is cancelled while it waits for its turn, one while its statement runs.

    Seen to fail with a batch that takes those, too, who were cancelled while they waited.
    """
    async with a_store() as (_, store):
        tasks = [asyncio.create_task(create(store, name)) for name in NAMES]

        async def cancel_one():
            tasks[1].cancel()

        batches.before = cancel_one
        await asyncio.sleep(0)
        tasks[2].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = [isinstance(one, asyncio.CancelledError) for one in results]
        assert cancelled == [number in (1, 2) for number in range(len(NAMES))]
        assert len(batches.keys) == 1
        assert await store.at(T0).read(key(NAMES[2])) is None
        assert await levels(store) == {("app", Status.WAITING): len(NAMES) - 1}


@pytest.mark.usefixtures("one_lane")
async def test_a_caller_that_is_cancelled_with_its_lane_in_hand_gives_it_back():
    """Seen to fail with a turn that keeps the lane it was given: everybody else waits for ever."""
    async with a_store() as (_, store):
        first, second = (asyncio.create_task(create(store, name)) for name in NAMES[:2])
        first.add_done_callback(lambda _: None)
        await asyncio.sleep(0)
        (queue,) = store.database._queues._here.here().values()
        leave = combining._Lane.leave

        def leave_and_cancel(lane):
            leave(lane)
            second.cancel()

        combining._Lane.leave = leave_and_cancel
        try:
            await first
        finally:
            combining._Lane.leave = leave
        with pytest.raises(asyncio.CancelledError):
            await second
        assert queue._lanes == 0
        async with asyncio.timeout(10):
            await create(store, "another")


async def test_a_failure_is_told_to_the_one_whose_it_is(batches):
    """Seen to fail with a statement for many whose error goes to all of its callers."""
    async with a_store() as (_, store):
        bad = store.at(T0).create(key("bad"), state=NO_STATE, ttl=TTL, metadata={"zero": "\0"})
        calls = [create(store, name) for name in NAMES]
        results = await together(*calls[:6], bad, *calls[6:])
        assert batches.done == [0]
        failed = [one for one in results if isinstance(one, tuple)]
        assert len(failed) == 1
        assert not issubclass(failed[0][0], LapseError)
        assert await levels(store) == {("app", Status.WAITING): len(NAMES)}
