"""PostgreSQL does what many callers ask for in one statement, and nobody can tell.

The callers of these tests come at the same time: the first ones have a statement each, and the
others wait for them and share the next one.
"""

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

import asyncpg
import pytest

from backends import DUE, NO_STATE, T0, TICK, TTL, create, key, levels, message, note, use, words
from contents import contents
from lapse.core.documents import split_state
from lapse.core.errors import LapseError, OutcomeUnknownError, SessionExistsError
from lapse.core.lifecycle import Rules, Status
from lapse.core.messages import UsedBy
from lapse.store.options import ConnectionOptions
from lapse.store.postgres import combining
from lapse.store.postgres.connections import Connections
from lapse.store.records import LastSeen, Revision
from parts import store_with_parts
from postgres import database
from proxy import proxied

RULES = Rules(artifacts=True)
ONE = ConnectionOptions(pool_size=1)
NAMES = [f"s{number:02}" for number in range(12)]
STATE = {"plain": [1, {"two": None}], "text": "Ünï"}


@dataclass
class Batches:
    """The statements for many that were run, and what to do before and after the next one."""

    keys: list = field(default_factory=list)
    done: list = field(default_factory=list)

    async def before(self):
        """Do nothing."""

    async def after(self):
        """Do nothing."""


@pytest.fixture
def batches(monkeypatch):
    """What happened and may happen to statements for many callers."""
    seen = Batches()
    try_for, arguments = Connections.try_for, combining.Queue._arguments

    def noted(self, batch):
        seen.keys.append([waiting.item.key for waiting in batch])
        return arguments(self, batch)

    async def watched(self, *args):
        await seen.before()
        found = await try_for(self, *args)
        seen.done.append(len(found))
        await seen.after()
        return found

    monkeypatch.setattr(combining.Queue, "_arguments", noted)
    monkeypatch.setattr(Connections, "try_for", watched)
    return seen


@pytest.fixture
def one_lane(monkeypatch):
    """At most one statement of a kind is in flight."""
    monkeypatch.setattr(combining, "LANES", 1)


@asynccontextmanager
async def a_store(options=None):
    with database() as url:
        store = store_with_parts(url, RULES, options or ConnectionOptions())
        await store.open()
        try:
            yield url, store
        finally:
            await store.close()


@contextmanager
def nothing_is_combined():
    """Give every caller a statement of its own."""
    lanes, combining.LANES = combining.LANES, 1000
    try:
        yield
    finally:
        combining.LANES = lanes


async def together(*calls):
    """Run calls at the same time; return each result, or its error by class and text."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return [(type(one), str(one)) if isinstance(one, Exception) else one for one in results]


def creates(store):
    """Return creations of every kind, and what they meet."""
    at = store.at(DUE)
    plain = {"state": split_state(STATE), "ttl": TTL, "metadata": {}}
    return [
        *(at.create(key(name), **plain) for name in NAMES[:4]),
        at.create(key("briefly"), **plain | {"ttl": TTL / 1000}, used_by=UsedBy.USER),
        at.create(key("described"), **plain | {"metadata": {"segment": "a", "n": 1}}, site="x"),
        at.create(key("elsewhere", "bob", "other"), **plain | {"state": NO_STATE}),
        *(
            at.create(key(name), **plain)
            for name in ("waits", "overdue", "expired", "used", "stock", "owed")
        ),
    ]


async def all_at_once(store):
    """Make all creations, and then some that change shared state; return what each returned."""
    found = await together(*creates(store))
    for_all = [{"app:a": 1, "b": 2}, {"user:a": 1}, {"user:b": 1, "app:a": 2}, {"app:c": 2}]
    calls = (
        create(store, key(app=f"app {number}"), state=state) for number, state in enumerate(for_all)
    )
    return found, await together(*calls)


async def before_creates(url, store):
    """Put into the database what creations meet."""
    await create(store, "waits", now=DUE)
    await create(store, "overdue")
    await create(store, "expired", now=DUE)
    await store.at(DUE).expire(key("expired"))
    await use(store, "used")
    await create(store, "owed", now=DUE)
    await store.at(DUE).delete(key("owed"))
    await create(store, "first", state={"app:x": 1, "user:y": 2})
    await ask(
        url,
        "INSERT INTO sessions VALUES ('app', 'ann', 'stock', '{}', '2029-01-01', '2029-01-01')",
    )


@asynccontextmanager
async def holding(url, statement, names):
    """Hold what a statement locks for each of some sessions, until the block ends."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("BEGIN")
        for name in names:
            await connection.execute(statement, name)
        yield
        await connection.execute("ROLLBACK")
    finally:
        connection.terminate()


async def ask(url, *statements):
    """Run statements as somebody else does."""
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


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


LATER = DUE + TTL
FIRST = Revision(T0, 0, waiting=True)
LATE = [f"late {number}" for number in range(6)]


async def before_messages(url, store):
    """Make the sessions that messages are for; return what the writer of each has seen."""
    for name in (*NAMES[:4], "stale", "last", "both", "legacy", "described", *LATE):
        await create(store, name, metadata={"segment": name, "kind": f"{name}-session"})
    for name in ("bob", "bobs"):
        await create(store, key(name, "bob"), state={"x": {"deep": 1}})
    for name in ("agents", "asked"):
        await create(store, name, used_by=UsedBy.USER)
    for name in ("of app", "of user"):
        await create(store, key(name, app=name))
    seen = dict.fromkeys(("bob", "bobs", "of app", "of user", "unknown"), FIRST)
    await create(store, "held")
    held = await store.at(T0).append(key("held"), note("n1"), FIRST)
    held = await store.at(T0).append(key("held"), note("n2"), held.value.revision)
    seen["held"] = replace(held.value.revision, waiting=True)
    for name in (
        *(f"used {n}" for n in range(4)),
        "used stale",
        "repeated",
        "taken",
        "used last",
        "used elsewhere",
    ):
        seen[name] = await use(store, name)
    await create(store, "expired")
    await store.at(T0).expire(key("expired"))
    await ask(
        url,
        "INSERT INTO sessions VALUES ('app', 'ann', 'stock', '{}', '2029-01-01', '2029-01-01')",
    )
    return seen


def messages(store, seen):
    """Return messages of every kind, first ones and later ones, and what they meet."""
    at, later = store.at(DUE - TICK), store.at(LATER)

    def said(name, event_id="m2", revision=None, **more):
        session = key(name, "bob" if "bob" in name else "ann")
        event = message(event_id, at=DUE, **more)
        return at.append(session, event, revision or seen.get(name, FIRST))

    return [
        *(said(name, state={"n": name}) for name in NAMES[:4]),
        *(said(f"used {n}", state={"n": n}) for n in range(4)),
        *(
            said(name)
            for name in ("bob", "bobs", "legacy", "described", "held", "asked", "unknown")
        ),
        said("held", "n1"),
        said("stale", revision=Revision(T0, 7, waiting=True)),
        said("used stale", revision=Revision(T0, 0)),
        said("used elsewhere", revision=Revision(T0 + TICK, 1)),
        said("repeated", "m1"),
        said("taken", "m1", text="other words"),
        *(said(name, revision=LastSeen(DUE, None)) for name in ("last", "used last", "stock")),
        at.append(key("agents"), words("w1", at=DUE), FIRST),
        at.append(key("of app", app="of app"), message(state={"app:a": 1}), FIRST),
        at.append(key("of user", app="of user"), message(state={"user:a": 1}), FIRST),
        *(later.append(key(name), message(at=LATER), FIRST) for name in (*LATE, "expired")),
    ]


async def test_messages_that_share_a_statement_have_the_effect_that_each_would_have_alone(batches):
    """The results are the same, and so is everything that the database holds afterwards.

    Seen to fail with a `first_message_many` that moves no held events, and with one that counts
    the revivals of overdue sessions as plain first messages; and with an `append_many` that takes
    no notice of the revision that the writer has seen.
    """
    told, left = [], []
    for alone in (True, False):
        async with a_store() as (url, store):
            seen = await before_messages(url, store)
            if alone:
                with nothing_is_combined():
                    told.append(await together(*messages(store, seen)))
                assert batches.keys == []
            else:
                told.append(await together(*messages(store, seen)))
                assert sum(batches.done) >= 8
            left.append(await contents(url))
    assert told[0] == told[1]
    assert left[0] == left[1]


@pytest.mark.parametrize("is_used", [False, True], ids=["first", "later"])
async def test_a_locked_session_is_skipped_and_has_its_message_when_the_lock_is_gone(
    batches, is_used
):
    """Some sessions are locked by others: in a lane of their own, and in a batch.

    Seen to fail with a shared statement that waits for locked rows: it does nothing for anybody.
    """
    held = (NAMES[0], NAMES[1], NAMES[7])
    lock = "SELECT FROM lapse_lobby WHERE session_id = $1 FOR UPDATE"
    async with a_store() as (url, store):
        seen = [await (use if is_used else create)(store, name) for name in NAMES]
        async with holding(url, lock, held):
            tasks = {
                name: asyncio.create_task(
                    store.at(T0).append(
                        key(name), message("m2", at=DUE), replace(one, waiting=not is_used)
                    )
                )
                for name, one in zip(NAMES, seen, strict=True)
            }
            async with asyncio.timeout(9):  # less than a statement may take
                await asyncio.gather(*(task for name, task in tasks.items() if name not in held))
            assert max(batches.done) >= len(NAMES) - 4
            assert not any(tasks[name].done() for name in held)
        await asyncio.gather(*tasks.values())
        for name in NAMES:
            events = (await store.at(DUE).read(key(name))).events
            assert [one.id for one in events] == ["m1", "m2"][not is_used :]


@pytest.mark.usefixtures("one_lane")
@pytest.mark.parametrize("is_used", [False, True], ids=["first", "later"])
async def test_a_message_whose_answer_is_lost_is_stored_once(batches, is_used):
    """The statement for many was carried out, and its answer is lost.

    Seen to fail with a batch whose failure is that of all its callers.
    """
    async with a_store(ONE) as (url, direct), proxied(url) as (proxy, behind):
        store = store_with_parts(behind, RULES, ONE)
        before = [f"{name} before" for name in NAMES]
        seen = {name: await (use if is_used else create)(direct, name) for name in before + NAMES}

        def calls(names):
            revisions = (replace(seen[name], waiting=not is_used) for name in names)
            return (
                store.at(T0).append(key(name), message("m2", at=DUE), revision)
                for name, revision in zip(names, revisions, strict=True)
            )

        async def lose():
            proxy.arm()

        await asyncio.gather(*calls(before))
        batches.before, batches.keys[:] = lose, []
        found = await asyncio.gather(*calls(NAMES))
        assert proxy.lost.is_set()
        assert len(batches.keys) == 1
        assert [one.value.repeated for one in found] == [False] + [True] * (len(NAMES) - 1)
        for name in NAMES:
            events = (await direct.at(DUE).read(key(name))).events
            assert [one.id for one in events] == ["m1", "m2"][not is_used :]
        assert await levels(direct) == {("app", Status.USED): 2 * len(NAMES)}
        await store.close()


async def test_a_session_that_stock_adk_has_made_meanwhile_fails_no_other_message(batches):
    """Its message cannot move it into ADK's tables, where its key is taken.

    Seen to fail with a `first_message_many` that passes over rows that ADK's tables have already.
    """
    async with a_store() as (url, store):
        for name in NAMES:
            await create(store, name)
        await ask(
            url,
            "INSERT INTO sessions SELECT app_name, user_id, session_id, '{}', update_time,"
            f" update_time FROM lapse_lobby WHERE session_id = '{NAMES[6]}'",
        )
        found = await together(
            *(store.at(T0).append(key(name), message(at=DUE), FIRST) for name in NAMES)
        )
        assert batches.done[0] == 0
        assert all(one.changes for name, one in zip(NAMES, found, strict=True) if name != NAMES[6])
        for name in NAMES:
            assert [one.id for one in (await store.at(T0).read(key(name))).events] == ["m1"]
