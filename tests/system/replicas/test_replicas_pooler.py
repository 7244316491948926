"""Behind a pooler that lends a connection for one transaction, as pgbouncer does."""

import asyncio
from datetime import timedelta

import pytest
from pooler import pooled

from backends import key, message, note
from lapse.core.documents import StateDelta
from lapse.core.errors import StoreRefusedError, StoreUnavailableError
from lapse.core.feed import Feed
from lapse.core.lifecycle import Cause, Rules, Status
from lapse.store.options import ConnectionOptions
from lapse.sweep.sweeper import Sweeper
from parts import store_with_parts

pytestmark = pytest.mark.long

PLAIN = ConnectionOptions(statement_cache=0)
NAMES = "asyncpg.connection._uid"
HOUR, MOMENT = timedelta(hours=1), timedelta(milliseconds=1)
STATE = StateDelta(app={"a": 1}, session={"s": 2})


async def live(store, name):
    """Play the life of a session that is used, and deleted."""
    created = await store.create(key(name), state=STATE, ttl=HOUR, metadata={"k": 1})
    await store.amend(key(name), ttl=2 * HOUR, metadata={"l": 2})
    await store.extend(key(name))
    seen = created.value.revision
    for event in (note(), message(), message("m2")):
        seen = (await store.append(key(name), event, seen)).value.revision
    found = await store.read(key(name))
    assert [event.id for event in found.events] == ["m1", "m2", "n1"]
    assert found.state["app:a"] == 1
    assert (await store.lifecycle(key(name))).metadata == {"k": 1, "l": 2}
    assert name in {one.key.session_id for one in await store.list("app", "ann")}
    assert (await store.delete(key(name))).changes
    assert await store.read(key(name)) is None


async def expire(store, name):
    """Play the life of a session that expires, and is had back by a message."""
    created = await store.create(key(name), state=STATE, ttl=MOMENT, metadata={})
    async with asyncio.timeout(30):
        while (await store.lifecycle(key(name))).status is not Status.EXPIRED:
            await store.expire_due(100)
    assert await store.read(key(name)) is None
    await store.resurrect(key(name), cause=Cause.REQUEST)
    await store.append(key(name), message(), created.value.revision)
    assert (await store.lifecycle(key(name))).status is Status.USED


async def test_a_pooler_that_tracks_no_prepared_statements_is_told_with_the_setting_to_change(
    store_url, monkeypatch
):
    """Each process names its statements alike, and meets those of another one.

    Seen to fail with a store that lets the driver's error through: a traceback.
    """

    async def read_again_and_again(store):
        for _ in range(9):
            await store.time_to_next()

    async def start_again_and_again(url):
        for _ in range(9):
            monkeypatch.setattr(NAMES, 0)  # as in a new process
            store = store_with_parts(url)
            try:
                await store.open()
            finally:
                await store.close()

    async with pooled(store_url) as (url, _):
        monkeypatch.setattr(NAMES, 0)
        first = store_with_parts(url)
        with pytest.raises(StoreUnavailableError, match="set LAPSE_STATEMENT_CACHE=0"):
            await read_again_and_again(first)
        await first.close()
        with pytest.raises(StoreRefusedError, match="set LAPSE_STATEMENT_CACHE=0"):
            await start_again_and_again(url)


async def test_sessions_work_behind_a_transaction_pooler(store_url):
    """No statement relies on what another has left on its connection.

    Seen to fail with prepared statements kept, which is what the setting is for.
    """
    async with pooled(store_url) as (url, used):
        store = store_with_parts(url, Rules(), PLAIN)
        async with Sweeper(store, Feed()):
            await asyncio.gather(
                *(play(store, f"{play.__name__}{n}") for n in range(20) for play in (live, expire))
            )
        await store.close()
        assert len(set(used)) > 1
