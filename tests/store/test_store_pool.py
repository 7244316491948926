"""The pool of connections to PostgreSQL, where no store is needed to see it."""

import asyncio
import threading
from datetime import timedelta

import asyncpg

from lapse.store.postgres.pool import Pool
from postgres import database


async def test_a_place_that_comes_back_amid_a_block_of_the_pools_lock_is_given_back_after_it():
    """So the garbage collector does where it destroys what a closed event loop has left.

    Seen to fail, for ever, with a lock that its own thread cannot enter again.
    """
    with database() as url:
        pool = Pool(1, lambda: asyncpg.connect(url), timedelta(seconds=10))
        place = await pool.take()

        def amid():
            with pool._gate:
                pool.give_back(place)
                assert not pool._idle

        thread = threading.Thread(target=amid, daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
        assert await pool.take() is place
        pool.give_back(place)
        await pool.close()
