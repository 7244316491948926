"""The database's server stops as in a crash, or fails over, under replicas that write."""

import asyncio
import random
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from watching import running

from history import History, stored_at
from lapse.core.feed import Feed
from lapse.sweep.sweeper import sweep_once
from parts import store_with_parts
from postgres import own_server, prepare, run
from standby import standby_of

FAR = datetime(2100, 1, 1, tzinfo=UTC)
REPLICAS = 3
CRASHES = 3
"""Crashes of one seed, one after the other on the same server."""

UNFLUSHED = "&synchronous_commit=off"


async def check(url, told):
    """Check what a database holds, sweep everything that ever falls due, and check again."""
    faults = told.faults(stored_at(url), outage=True)
    store = store_with_parts(url)
    while (await sweep_once(store, Feed())).full:
        pass
    for days in (0, 2):
        while (await store.at(FAR + timedelta(days=days)).expire_due(100_000)).value:
            pass
        while (await store.at(FAR + timedelta(days=days)).purge_due(100_000)).value:
            pass
    assert await store.time_to_next() is None
    await store.close()
    faults += told.faults(stored_at(url), purged=True, outage=True)
    assert not faults, "\n".join(faults[:9])


async def crash(seed, _folder=None, broken=None):
    """Stop PostgreSQL as a crash does, under three replicas; return how often."""
    chance = random.Random(seed)
    with own_server() as server:
        prepare(server.url)
        url = server.url + (UNFLUSHED if broken == "unflushed" else "")
        replicas = []
        try:
            async with AsyncExitStack() as stack:
                for number in range(REPLICAS):
                    begun = running(url, "serve", f"r{number}")
                    replicas.append(await stack.enter_async_context(begun))
                # One that cannot reach its database while it starts ends, as it should.
                await asyncio.gather(*(replica.more(1) for replica in replicas))
                for _ in range(CRASHES):
                    await chance.choice(replicas).more(chance.randint(20, 200))
                    await asyncio.to_thread(server.stop, "immediate")
                    await asyncio.to_thread(server.start)
                await asyncio.gather(*(replica.more(20) for replica in replicas))
        finally:  # also when one has ended because it was refused what it was told
            await check(server.url, History.of(*(replica.facts for replica in replicas)))
    return CRASHES


async def fail_over(seed, _folder=None, broken=None):
    """Kill a primary, with its standby as it is or hung before, and promote the standby.

    With `broken` no commit waits for the standby.
    """
    chance = random.Random(seed)
    with own_server() as primary:
        prepare(primary.url)
        with standby_of(primary) as standby:
            if broken:
                run(primary.url, "ALTER SYSTEM RESET synchronous_standby_names")
                run(primary.url, "SELECT pg_reload_conf()")
            async with running(primary.url, "serve") as replica:
                await replica.more(chance.randint(20, 200))
                if broken or chance.random() < 0.5:
                    standby.hang()
                    await asyncio.sleep(chance.choice((0.05, 0.5)))
                if broken:
                    await replica.more(100)
                await asyncio.to_thread(primary.stop, "immediate")
                await asyncio.to_thread(standby.promote)
            await check(standby.url, History.of(replica.facts))
    return 1
