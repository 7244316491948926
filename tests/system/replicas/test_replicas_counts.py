"""Counts that stay exact when replicas meet in one row or one counter."""

import asyncio

import asyncpg
import pytest
from watching import eventually

from backends import DUE, T0, TTL, create, key
from lapse.core.documents import StateDelta
from lapse.core.errors import SessionExistsError
from lapse.core.lifecycle import ChangeKind
from lapse.overview.store import COUNT_INTERVAL
from parts import store_with_parts
from postgres import rows

pytestmark = pytest.mark.long

BLOCKED = "SELECT count(*) FROM pg_locks WHERE NOT granted AND NOT fastpath"
TOMBSTONE = """
UPDATE lapse_lobby SET status = 'expired', expired_at = now(), restorable_until = now()
"""


@pytest.fixture
async def store(store_url):
    store = store_with_parts(store_url)
    await store.open()
    yield store
    await store.close()


async def beside(store_url, work, *statements):
    """Begin work while a transaction with statements is open; commit once the work waits for it."""
    other = await asyncpg.connect(store_url)
    try:
        async with other.transaction():
            for statement in statements:
                await other.execute(statement)
            working = asyncio.create_task(work)
            await eventually(lambda: rows(store_url, BLOCKED) == [(1,)] or working.done())
        return (await asyncio.gather(working, return_exceptions=True))[0]
    finally:
        await other.close()


async def test_a_create_does_not_replace_a_row_that_came_after_its_check(store_url, store):
    """Seen to fail with the status that it had seen left out of the condition."""
    ((columns,),) = rows(
        store_url,
        "SELECT string_agg(column_name, ', ') FROM information_schema.columns"
        " WHERE table_name = 'lapse_lobby' AND column_name <> 'used_id'",
    )
    again = store.at(DUE).create(key(), state=StateDelta(), ttl=TTL, metadata={})
    copied = f"INSERT INTO lapse_lobby ({columns}) SELECT {columns} FROM kept"
    await create(store)
    other = await asyncpg.connect(store_url)
    await other.execute(f"CREATE TABLE kept AS SELECT {columns} FROM lapse_lobby")
    await other.close()
    await store.at(T0).delete(key())
    try:
        refused = await beside(store_url, again, copied, TOMBSTONE)
    finally:
        rows(store_url, "DROP TABLE kept")
    assert isinstance(refused, SessionExistsError)


async def test_a_fold_skips_a_counter_that_another_transaction_changes(store_url, store):
    """Seen to fail with counts that are read before they are deleted."""
    for number in range(3):
        await create(store, f"s{number}")
    later = T0 + COUNT_INTERVAL
    added = "UPDATE lapse_counts SET sessions = sessions + 1"
    assert await beside(store_url, store.at(later).fold_counts(), added) is None
    await store.at(later).fold_counts()
    found = await store.at(later).overview(since=COUNT_INTERVAL)
    assert [tally.sessions for tally in found.tallies] == [4]
    (one,) = found.counts
    assert (one.kind, one.sessions) == (ChangeKind.CREATED, 4)
    assert rows(store_url, "SELECT count(*) FROM lapse_counts") == [(0,)]
