"""PostgreSQL's NOTIFY tells sweepers of a deadline within 20 s, which they could sleep through."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from shared_statements import NAMES, a_store, together

from backends import NO_STATE, T0, create, key, words
from lapse.core.lifecycle import Cause
from lapse.core.messages import UsedBy
from lapse.store.records import Revision

FAR = timedelta(seconds=20)
NEAR = FAR - timedelta(microseconds=1)
FRESH = Revision(T0, 0, waiting=True)
HELD = timedelta(minutes=1)


def create_one(store, ttl):
    return create(store, "new", ttl=ttl)


def create_many(store, ttl):
    at = store.at(T0)
    made = (at.create(key(name), state=NO_STATE, ttl=ttl, metadata={}) for name in NAMES)
    return together(*made)


def create_others(store, ttl):
    """The first ones, which have a statement of their own, are not near."""
    at, ttls = store.at(T0), [FAR] * 4 + [ttl] * (len(NAMES) - 4)
    where = zip(map(key, NAMES), ttls, strict=True)
    return together(*(at.create(one, state=NO_STATE, ttl=ttl, metadata={}) for one, ttl in where))


def amend(store, ttl):
    return store.at(T0).amend(key("lasting"), ttl=ttl)


def restart(store, ttl):
    return store.at(T0).restart_ttl(key(), held_for=HELD)


def resurrect(store, ttl):
    return store.at(T0 + ttl).resurrect(key(), cause=Cause.REQUEST)


def hold_words(store, ttl):
    return store.at(T0 + ttl).append(key(), words(), FRESH)


@pytest.mark.parametrize(
    "do", [create_one, create_many, create_others, amend, restart, resurrect, hold_words]
)
@pytest.mark.parametrize("ttl", [NEAR, FAR], ids=["near", "far"])
async def test_a_new_deadline_is_told_if_it_is_near(do, ttl):
    """Seen to fail with the edge on the other side, and with the comparison turned round."""
    told, over = [], asyncio.Event()

    def heard(_connection, _process, _channel, seconds):
        over.set() if seconds == "over" else told.append(float(seconds))

    async with a_store() as (url, store):
        await create(store, ttl=ttl, used_by=UsedBy.USER)
        await create(store, "lasting")
        listener = await asyncpg.connect(url)
        await listener.add_listener("lapse_deadlines", heard)
        await do(store, ttl)
        await listener.execute("SELECT pg_notify('lapse_deadlines', 'over')")
        await asyncio.wait_for(over.wait(), 60)
        await listener.close()
    # What one statement tells several times is heard once.
    assert set(told) == ({NEAR.total_seconds()} if ttl is NEAR else set())
