"""Draws of two replicas at one instant, in the orders in which a read without a lock fails."""

import asyncio

import asyncpg
import pytest
from watching import BOUND

from backends import T0
from lapse.quotas.rules import Bucket, Drawer
from lapse.store.postgres import call
from lapse.store.postgres.wording import TYPES
from lapse.store.statements import Positional, read_statements
from parts import store_with_parts

pytestmark = pytest.mark.long

ANN = Bucket.of(Drawer.USER, "ann", 4)
ALL = Bucket.of(Drawer.ALL, "", 100)
WAITERS = """
SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted
  AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())
"""
THERE = "SELECT 1 FROM lapse_turns FOR UPDATE"
NEW = f"INSERT INTO lapse_turns (bucket, full_at) VALUES ('{ANN.name}', now())"


@pytest.fixture
async def two_stores(store_url):
    one, other = store_with_parts(store_url), store_with_parts(store_url)
    yield one, other
    await one.close()
    await other.close()


async def at_one_instant(store_url, two_stores, held):
    """Draw eight times while a transaction holds the lock; return how many draws succeeded."""
    keeper, looking = await asyncpg.connect(store_url), await asyncpg.connect(store_url)
    try:
        async with asyncio.timeout(BOUND):
            keeping = keeper.transaction()
            await keeping.start()
            await keeper.execute(held)
            taking = [
                asyncio.create_task(two_stores[n % 2].at(T0).draw([ANN, ALL])) for n in range(8)
            ]
            while await looking.fetchval(WAITERS) < len(taking):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await keeping.rollback()
            turns = await asyncio.gather(*taking)
    finally:
        await keeper.close()
        await looking.close()
    return sum(not turn.wait for turn in turns)


async def test_concurrent_draws_on_two_replicas_take_no_more_than_the_bucket_holds(
    store_url, two_stores
):
    await two_stores[0].at(T0).draw([ANN, ALL])
    assert await at_one_instant(store_url, two_stores, THERE) == 3


async def test_concurrent_first_draws_take_no_more_than_a_new_bucket_holds(store_url, two_stores):
    """Seen to let in all, with an insert of what is drawn from a bucket that was not there."""
    assert await at_one_instant(store_url, two_stores, NEW) == 4


async def test_a_draw_without_a_lock_takes_more_than_the_bucket_holds(
    store_url, two_stores, monkeypatch
):
    wrong = read_statements("postgres")["draw"].replace("FOR UPDATE", "")
    monkeypatch.setitem(call.STATEMENTS, "draw", Positional.of(wrong, TYPES))
    await two_stores[0].at(T0).draw([ANN, ALL])
    assert await at_one_instant(store_url, two_stores, THERE) == 8
