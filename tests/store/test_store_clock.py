"""The store's own clock decides unless `at` names another time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from backends import HOUR, NO_STATE, TICK, TTL, key, message, note
from lapse.core.lifecycle import Cause, ChangeKind, Status

SHORT = timedelta(milliseconds=20)
BOUND = 20.0


async def waiting(store, name="s1", ttl=TTL):
    return await store.create(key(name), state=NO_STATE, ttl=ttl, metadata={})


async def expired(store, name="s1"):
    """Create a session with a short TTL and wait until it is due."""
    created = await waiting(store, name, SHORT)
    async with asyncio.timeout(BOUND):
        while ahead := await store.time_to_next():  # noqa: ASYNC110 - no event tells the time
            await asyncio.sleep(ahead.total_seconds())
    return created


async def test_a_session_is_created_at_the_present_moment(store):
    before = datetime.now(UTC)
    created = await waiting(store)
    record = created.changes[0].record
    assert before - TICK <= record.created_at <= datetime.now(UTC)
    assert record.expires_at == record.created_at + TTL
    assert created.value.revision.update_time == record.created_at
    assert await store.lifecycle(key()) == record


async def test_a_sweep_leaves_a_fresh_session_and_its_deadline_comes_nearer(store):
    await waiting(store)
    assert (await store.expire_due(10)).value == 0
    assert (await store.purge_due(10)).value == 0
    assert [found.key for found in await store.list("app", "ann")] == [key()]
    assert TTL - timedelta(seconds=BOUND) < await store.time_to_next() <= TTL


async def test_a_session_expires_by_the_stores_clock_and_not_before_its_deadline(store):
    created = await expired(store)
    assert datetime.now(UTC) >= created.changes[0].record.expires_at
    assert await store.list("app", "ann") == []
    assert await store.time_to_next() == timedelta(0)
    (change,) = (await store.expire_due(10)).changes
    assert change.lateness >= timedelta(0)
    assert change.at == change.record.expired_at
    assert (await store.lifecycle(key())).status is Status.EXPIRED


async def test_the_first_message_counts_at_the_present_moment_whatever_its_own_timestamp(store):
    created = await waiting(store)
    old = datetime(2001, 1, 1, tzinfo=UTC)
    held = await store.append(key(), note(at=old), created.value.revision)
    appended = await store.append(key(), message(at=old), held.value.revision)
    (change,) = appended.changes
    assert change.record.first_message_at == change.at >= created.changes[0].at
    assert appended.value.revision.update_time == old


async def test_a_message_resurrects_a_session_by_the_stores_clock(store):
    created = await expired(store)
    appended = await store.append(key(), message(), created.value.revision)
    assert [change.kind for change in appended.changes] == [
        ChangeKind.RESURRECTED,
        ChangeKind.USED,
    ]
    assert (await store.lifecycle(key())).status is Status.USED


async def test_extending_and_amending_count_from_the_present_moment(store):
    created = await waiting(store)
    extended = await store.extend(key())
    assert (
        extended.value.expires_at
        == extended.changes[0].at + TTL
        > created.changes[0].record.expires_at
    )
    amended = await store.amend(key(), ttl=HOUR)
    assert amended.value.expires_at == amended.changes[0].at + HOUR


async def test_resurrecting_counts_from_the_present_moment(store):
    await expired(store)
    outcome = await store.resurrect(key(), cause=Cause.RUN)
    assert outcome.value.expires_at == outcome.changes[0].at + SHORT


@pytest.mark.parametrize("swept", [True, False], ids=["swept", "unswept"])
async def test_the_change_of_deleting_an_expired_session_says_when(store, swept):
    created = await expired(store)
    if swept:
        await store.expire_due(10)
    (change,) = (await store.delete(key())).changes
    assert change.at >= created.changes[0].record.expires_at
    assert change.record.status is Status.EXPIRED
