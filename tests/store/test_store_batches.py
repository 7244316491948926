"""SQLite writes counts and observations once for all operations of a commit."""

import asyncio
import threading
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from backends import create, key, levels, message
from lapse.core.errors import SessionExistsError
from lapse.core.lifecycle import ChangeKind, Status
from parts import store_with_parts

APP = "app"
SESSIONS = 20
RIDER = {"app_name": APP, "now": 0, "kind": "", "was": "", "became": "x", "sessions": 1}


@pytest.fixture
async def store(tmp_path):
    made = store_with_parts(f"sqlite:///{tmp_path / 'lapse.db'}")
    await made.open()
    yield made
    await made.close()


@asynccontextmanager
async def one_commit(store):
    """Have what is begun inside the block share a commit; yield the statements that it runs."""
    _, writer = await store.database._lanes.get()
    begun, goes_on = threading.Event(), threading.Event()
    statements = []

    def hold(batch):
        begun.set()
        assert goes_on.wait(30)
        batch.connection.set_trace_callback(statements.append)

    holding = asyncio.create_task(writer.run(hold))
    await asyncio.to_thread(begun.wait)
    yield statements
    await asyncio.sleep(0)  # what was begun stands in the queue
    goes_on.set()
    await holding


def begin(*work):
    return [asyncio.create_task(one) for one in work]


def inserts(statements, table):
    return [one for one in statements if f"INSERT INTO {table}" in one]


async def changes(store):
    """Return how many changes of each kind were counted."""
    counts = (await store.overview(since=timedelta(hours=1))).counts
    return {one.kind: one.sessions for one in counts}


async def observed(store):
    """Return how many first messages were observed."""

    def counted(batch):
        return batch.connection.execute("SELECT count(*) FROM lapse_observations").fetchone()[0]

    reader, _ = await store.database._lanes.get()
    return await reader.run(counted)


async def with_sessions(store, number):
    return [await create(store, f"s{n}", now=None) for n in range(number)]


async def say(store, n, seen):
    at = datetime.now(UTC)
    return await store.append(key(f"s{n}"), message(f"m{n}", at=at), seen)


async def test_changes_that_are_alike_are_counted_in_one_row(store):
    """Seen to fail with counts that each job writes."""
    async with one_commit(store) as statements:
        work = begin(*(create(store, f"s{n}", now=None) for n in range(SESSIONS)))
    await asyncio.gather(*work)
    assert len(inserts(statements, "lapse_counts")) == 1
    assert await levels(store) == {(APP, Status.WAITING): SESSIONS}
    assert await changes(store) == {ChangeKind.CREATED: SESSIONS}


async def test_each_first_message_is_counted_and_observed(store):
    """Seen to fail without the last write before the commit."""
    seen = await with_sessions(store, SESSIONS)
    async with one_commit(store) as statements:
        work = begin(*(say(store, n, one) for n, one in enumerate(seen)))
    await asyncio.gather(*work)
    assert len(inserts(statements, "lapse_counts")) == 1
    assert len(inserts(statements, "lapse_observations")) == SESSIONS
    assert await levels(store) == {(APP, Status.USED): SESSIONS}
    assert await observed(store) == SESSIONS


async def test_a_refusal_counts_nothing_and_leaves_the_counts_of_the_others(store):
    """Seen to fail with counts that a refusal forgets."""
    async with one_commit(store):
        work = begin(*(create(store, name, now=None) for name in ("s0", "s1", "s0", "s2")))
    found = await asyncio.gather(*work, return_exceptions=True)
    assert [type(one) for one in found].count(SessionExistsError) == 1
    assert await levels(store) == {(APP, Status.WAITING): 3}
    assert await changes(store) == {ChangeKind.CREATED: 3}


async def test_an_operation_that_fails_after_its_count_has_none_counted_twice(store):
    """All jobs of its commit are then run again, each alone.

    Seen to fail with a batch that outlives its transaction.
    """
    _, writer = await store.database._lanes.get()

    def fail(batch):
        batch.add("count", RIDER)
        raise ValueError("half-way")

    async with one_commit(store):
        work = begin(create(store, "s0", now=None), writer.run(fail), create(store, "s1", now=None))
    found = await asyncio.gather(*work, return_exceptions=True)
    assert isinstance(found[1], ValueError)
    assert await levels(store) == {(APP, Status.WAITING): 2}
    assert await changes(store) == {ChangeKind.CREATED: 2}


async def test_a_refusal_after_a_count_is_a_failure(store):
    """An operation that refuses has written nothing; one that has counted must leave no count.

    Seen to fail with riders that wait left out of what a batch has changed.
    """
    _, writer = await store.database._lanes.get()

    def refuse(batch):
        batch.add("count", RIDER)
        raise SessionExistsError("too late")

    async with one_commit(store):
        work = begin(create(store, "s0", now=None), writer.run(refuse))
    found = await asyncio.gather(*work, return_exceptions=True)
    assert isinstance(found[1], SessionExistsError)
    assert await levels(store) == {(APP, Status.WAITING): 1}


async def test_what_reads_the_counts_in_the_same_commit_finds_those_before_it(store):
    """Seen to fail with a recount that does not wait for the counts of its commit."""
    async with one_commit(store):
        work = begin(create(store, "s0", now=None), store.recount(), create(store, "s1", now=None))
    await asyncio.gather(*work)
    assert await levels(store) == {(APP, Status.WAITING): 2}
