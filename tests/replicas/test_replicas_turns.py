"""Turns that replicas take at one instant, in the order that a read without a lock loses."""

import asyncio

import asyncpg
import pytest
from watching import BOUND

from backends import T0
from lapse.quotas import Bucket, Drawer
from lapse.stores import store_from_url
from lapse.stores.postgres import call
from lapse.stores.statements import Positional, read_statements

ANN = Bucket.of(Drawer.USER, "ann", 4)
ALL = Bucket.of(Drawer.ALL, "", 100)
WAITERS = """
SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted
  AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())
"""


@pytest.fixture
async def pair(place):
    one, other = store_from_url(place), store_from_url(place)
    yield one, other
    await one.close()
    await other.close()


async def at_one_instant(place, pair, times):
    """Take turns that all wait for the same row; return how many were let in."""
    await pair[0].take_turn([ANN, ALL], now=T0)
    keeper, looking = await asyncpg.connect(place), await asyncpg.connect(place)
    try:
        async with keeper.transaction():
            await keeper.execute("SELECT 1 FROM lapse_turns FOR UPDATE")
            taking = [
                asyncio.create_task(pair[n % 2].take_turn([ANN, ALL], now=T0)) for n in range(times)
            ]
            async with asyncio.timeout(BOUND):
                while await looking.fetchval(WAITERS) < times:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        turns = await asyncio.gather(*taking)
    finally:
        await keeper.close()
        await looking.close()
    return sum(not turn.wait for turn in turns)


async def test_no_more_turns_are_given_than_there_are(place, pair):
    assert await at_one_instant(place, pair, 8) == 3


async def test_a_read_without_a_lock_would_give_more(place, pair, monkeypatch):
    wrong = read_statements("postgres")["take_turn"].replace("FOR UPDATE", "")
    monkeypatch.setitem(call.STATEMENTS, "take_turn", Positional.of(wrong, call._TYPES))
    assert await at_one_instant(place, pair, 8) == 8
