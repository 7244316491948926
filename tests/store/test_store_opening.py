"""The first calls of a process, however many come at once, open the store once."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

import lapse.store.postgres.database
import lapse.store.sqlite.database
from backends import create, key
from lapse.core.errors import StoreUnavailableError
from lapse.store.options import ConnectionOptions
from parts import store_with_parts

CALLS = 500
POOL = 4


class Counted:
    """Counts connections to PostgreSQL, and how often a store is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connections = self.openings = 0
        self.opening: asyncio.Event | None = None
        connect, prepare = asyncpg.connect, lapse.store.postgres.database.prepare
        lanes = lapse.store.sqlite.database._Lanes
        make = lanes._make

        async def connecting(*args, **kwargs):
            self.connections += 1
            return await connect(*args, **kwargs)

        async def preparing(*args):
            self.openings += 1
            await prepare(*args)

        def making(self_):
            self.openings += 1
            return make(self_)

        monkeypatch.setattr(asyncpg, "connect", connecting)
        monkeypatch.setattr(lapse.store.postgres.database, "prepare", preparing)
        monkeypatch.setattr(lanes, "_make", making)


@pytest.fixture
async def cold(store_url):
    store = store_with_parts(store_url, options=ConnectionOptions(pool_size=POOL))
    yield store
    await store.close()


async def test_many_first_calls_open_the_store_once_and_keep_to_the_pool(cold, monkeypatch) -> None:
    """Seen to fail with first calls that each open the store: 500 connections."""
    counted = Counted(monkeypatch)
    await asyncio.gather(*(create(cold, f"s{number}", now=None) for number in range(CALLS)))
    assert counted.openings == 1
    assert counted.connections <= POOL
    assert len(await cold.list("app", "ann")) == CALLS


async def test_a_first_call_that_is_cancelled_does_not_cancel_the_opening(
    cold, monkeypatch
) -> None:
    """Seen to fail with an opening that is the first caller's own."""
    counted = Counted(monkeypatch)
    calls = [asyncio.create_task(cold.read(key())) for _ in range(10)]
    await asyncio.sleep(0)
    calls[0].cancel()
    assert await asyncio.gather(*calls[1:]) == [None] * 9
    assert calls[0].cancelled()
    assert counted.openings == 1


async def test_an_opening_that_fails_fails_for_all_who_wait_and_is_tried_again(
    cold, monkeypatch
) -> None:
    """Seen to fail with an opening whose failure is kept."""
    counted = Counted(monkeypatch)
    fails = True
    prepare = lapse.store.postgres.database.prepare
    make = lapse.store.sqlite.database._Lanes._make

    async def preparing(*args):
        if fails:
            raise StoreUnavailableError("not now")
        await prepare(*args)

    def making(self):
        if fails:
            raise StoreUnavailableError("not now")
        return make(self)

    monkeypatch.setattr(lapse.store.postgres.database, "prepare", preparing)
    monkeypatch.setattr(lapse.store.sqlite.database._Lanes, "_make", making)
    faults = await asyncio.gather(*(cold.read(key()) for _ in range(10)), return_exceptions=True)
    assert [str(fault) for fault in faults] == ["not now"] * 10
    fails = False
    assert await cold.read(key()) is None
    assert counted.openings == 1
