"""PostgreSQL falls silent: connections stand, and nothing is answered."""

import asyncio
import threading
from datetime import timedelta

import httpx
import pytest
from calls import CALLS

from lapse.core.lifecycle import Rules
from lapse.store.options import ConnectionOptions
from parts import store_with_parts
from postgres import database
from proxy import proxied
from serving import AGENTS, Server

pytestmark = pytest.mark.long

RULES = Rules(artifacts=True)
PATIENT = ConnectionOptions(
    pool_size=1,
    connect_timeout=timedelta(minutes=10),
    statement_timeout=timedelta(minutes=10),
    patience=timedelta(minutes=10),
)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_server_ends_while_its_database_is_silent(tmp_path, busy):
    """It does not wait for what would never be answered.

    Seen to fail with a pool that has as long to close as a connection has to be made, and with a
    connection that waits as long for the end of a statement that was given up.
    """
    with database() as url:
        async with proxied(url) as (proxy, proxied_url):
            server = await asyncio.to_thread(
                Server,
                tmp_path,
                str(AGENTS),
                "--store",
                proxied_url,
                LAPSE_CONNECT_TIMEOUT_SECONDS="600",
                LAPSE_STATEMENT_TIMEOUT_SECONDS="600",
            )
            session = await asyncio.to_thread(server.create)
            proxy.speaks.clear()
            if busy:
                asked = threading.Thread(target=ask, args=(server, session))
                asked.start()
                await proxy.asked.wait()
            await asyncio.to_thread(server.stop)
            if busy:
                await asyncio.to_thread(asked.join)
            proxy.speaks.set()


def ask(server, session):
    """Ask for something that the silence keeps from being answered."""
    try:
        answer = server.client.post(server.path(session) + "/lifecycle/extend")
    except httpx.TransportError:
        return
    assert answer.status_code >= 500


@pytest.mark.parametrize("name", CALLS)
async def test_an_operation_that_is_given_up_while_its_database_is_silent_ends(name):
    """Whichever of its statements is not answered. Then the store closes.

    Seen to fail with asyncpg's own transactions, which ask for a rollback and wait.
    """
    call, answered, is_done = CALLS[name][0], 0, False
    while not is_done:
        with database() as url:
            direct = store_with_parts(url, RULES)
            await call.needs(direct)
            async with proxied(url) as (proxy, behind):
                store = store_with_parts(behind, RULES, PATIENT)
                await store.time_to_next()  # a connection is in the pool
                proxy.fall_silent(after=answered)
                is_done = not await given_up(call.make(store.at(call.at)), proxy)
                await store.close()
                proxy.speaks.set()
            await direct.close()
        answered += 1
    assert answered > 1


async def test_a_snapshot_that_is_given_up_while_its_database_is_silent_ends():
    async def read(store):
        async with store.database.snapshot():
            proxy.fall_silent()
            await store.database.snapshot().__aenter__()

    with database() as url:
        async with proxied(url) as (proxy, behind):
            store = store_with_parts(behind, RULES, PATIENT)
            await store.time_to_next()
            assert await given_up(read(store), proxy)
            await store.close()
            proxy.speaks.set()


async def given_up(working, proxy):
    """Give work up once the database is silent, and wait for its end; False: it was done."""
    task = asyncio.ensure_future(working)
    silent = asyncio.ensure_future(proxy.asked.wait())
    await asyncio.wait({task, silent}, return_when=asyncio.FIRST_COMPLETED)
    is_silent = silent.done()
    silent.cancel()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return is_silent
