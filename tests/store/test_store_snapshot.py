"""A snapshot: what was committed before it was opened, and nothing later."""

import asyncio
from contextlib import suppress

import pytest

from backends import T0, create, key, message, use
from lapse.core.errors import OutcomeUnknownError
from lapse.store.sessions import Sessions


async def test_a_snapshot_reads_what_was_there_when_it_was_opened(store):
    """Seen to fail with parts on the store in place of the snapshot; on PostgreSQL also without
    the first statement, and in a transaction that is read committed."""
    revision = await use(store, "s1")
    async with store.snapshot() as snapshot:
        then = Sessions(snapshot)
        await create(store, "s2")
        await store.at(T0).append(key("s1"), message("m2"), revision)
        await store.at(T0).delete(key("s2"))
        assert await then.lifecycle(key("s2")) is None
        found = await then.read(key("s1"))
        assert [event.id for event in found.events] == ["m1"]
    assert [event.id for event in (await store.read(key("s1"))).events] == ["m1", "m2"]


async def test_nothing_can_be_written_through_a_snapshot(store):
    await use(store, "s1")
    with pytest.raises(Exception, match=r"read-only|readonly") as refused:
        async with store.snapshot() as snapshot:
            await Sessions(snapshot).delete(key("s1"))
    assert not isinstance(refused.value, OutcomeUnknownError)
    assert await store.lifecycle(key("s1")) is not None


async def test_a_snapshot_closes_after_a_reader_that_was_cancelled(store):
    await use(store, "s1")
    async with store.snapshot() as snapshot:
        reading = Sessions(snapshot).read(key("s1"))
        task = asyncio.create_task(reading)
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await use(store, "s2")
