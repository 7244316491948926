"""PostgreSQL falls silent: connections stand, and nothing is answered."""

import asyncio
import threading

import httpx
import pytest

from postgres import database
from proxy import proxied
from serving import AGENTS, Server

pytestmark = pytest.mark.long


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
