"""The pool of connections to PostgreSQL, where no store is needed to see it."""

import asyncio
import gc
import threading
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

import scratch
from lapse.store.postgres import place
from lapse.store.postgres.pool import Pool
from postgres import database
from proxy import SOCKET


async def test_a_place_that_comes_back_amid_a_block_of_the_pools_lock_is_given_back_after_it():
    """So the garbage collector does where it destroys what a closed event loop has left.

    Seen to fail, for ever, with a lock that its own thread cannot enter again.
    """
    with database() as url:
        pool = Pool(1, lambda: asyncpg.connect(url), timedelta(seconds=10))
        taken = await pool.take()

        def amid():
            with pool._gate:
                pool.give_back(taken)
                assert not pool._idle

        thread = threading.Thread(target=amid, daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
        assert await pool.take() is taken
        pool.give_back(taken)
        await pool.close()


class Way:
    """A way to PostgreSQL that counts the connections that the server has not ended.

    Attributes:
        most: how many there were at once, at most, counted from the moment one is asked for.
    """

    def __init__(self, url):
        self.most = self._living = 0
        self._folder = url.partition("host=")[2]

    async def serve(self, reader, writer):
        from_server, to_server = await asyncio.open_unix_connection(str(Path(self._folder, SOCKET)))
        self._living += 1
        asking = asyncio.create_task(copy(reader, to_server))
        while data := await from_server.read(1 << 16):
            writer.write(data)
        self._living -= 1
        writer.close()
        await asking

    async def connect(self, url):
        self.most = max(self.most, self._living + 1)
        return await asyncpg.connect(url, connection_class=place.Connection)


async def copy(reader, writer):
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def pool_of_one(monkeypatch):
    """Yield a pool of one connection, and the way to the server on which it is counted."""
    monkeypatch.setattr(place, "PARTING", timedelta(minutes=1))  # a slow machine does not matter
    with database() as url, TemporaryDirectory(dir=scratch.once("sockets")) as here:
        way = Way(url)
        through = url.replace(url.partition("host=")[2], here)
        async with await asyncio.start_unix_server(way.serve, Path(here) / SOCKET):
            pool = Pool(1, lambda: way.connect(through), timedelta(seconds=30))
            yield pool, way
            await pool.close()


async def use(pool):
    """Take the place of a pool, and give it back."""
    pool.give_back(await pool.take())


async def test_no_connection_is_made_while_those_of_a_loop_that_ends_are_being_closed(monkeypatch):
    """Seen to fail, with two connections, when places are free before connections are closed."""
    async with pool_of_one(monkeypatch) as (pool, way):
        await use(pool)
        ending = pool._loops[asyncio.get_running_loop()]
        await asyncio.gather(ending.aclose(), use(pool))
        assert way.most == 1


async def test_who_waits_has_the_place_of_a_loop_that_ends_once_its_connection_is_closed(
    monkeypatch,
):
    """Seen to fail, with two connections, when the place is handed over before."""
    async with pool_of_one(monkeypatch) as (pool, way):
        await pool.take()
        ending = pool._loops[asyncio.get_running_loop()]
        await asyncio.gather(use(pool), ending.aclose())
        assert way.most == 1


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
async def test_no_connection_is_made_before_those_of_a_closed_loop_have_ended(monkeypatch):
    """Seen to fail, with two connections, when they are only cut off."""
    async with pool_of_one(monkeypatch) as (pool, way):

        def on_a_loop_that_is_only_closed():
            loop = asyncio.new_event_loop()
            loop.run_until_complete(use(pool))
            loop.close()

        await asyncio.to_thread(on_a_loop_that_is_only_closed)
        await use(pool)
        assert way.most == 1
    gc.collect()  # what a closed loop has left warns here, and not in another test
