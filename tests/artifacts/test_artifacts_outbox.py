"""The outbox of ended sessions whose artifacts are to be deleted, on every store."""

from datetime import timedelta

import pytest

from backends import DUE, GONE, HOUR, NO_STATE, T0, TICK, TTL, create, key, message
from lapse.artifacts.outbox import Outbox


async def test_a_session_that_is_deleted_or_purged_is_in_the_outbox(open_store):
    """Seen to fail when the end of a used session is not noted."""
    store = await open_store(artifacts=True)
    for name in ("purged", "deleted", "used"):
        revision = await create(store, name)
    await store.at(T0).append(key("used"), message(), revision)
    await store.at(T0).delete(key("deleted"))
    await store.at(T0).delete(key("used"))
    assert await store.at(T0).delete(key("unknown")) == GONE
    later = T0 + timedelta(days=3)
    await store.at(T0 + HOUR).expire_due(10)
    await store.at(later).purge_due(10)
    outbox = Outbox(store.at(later))
    taken = {left.key.session_id: left for left in await outbox.take_outbox(10)}
    assert set(taken) == {"purged", "deleted", "used"}
    assert taken["purged"].ended_at == later
    assert not await outbox.take_outbox(10), "not before the next attempt"
    await outbox.settle_outbox(taken["deleted"])
    await outbox.settle_outbox(taken["used"])
    (again,) = await Outbox(store.at(later + HOUR)).take_outbox(10)
    assert (again.key.session_id, again.attempts) == ("purged", 2)


async def test_a_used_session_that_stock_adk_created_is_in_the_outbox_once_deleted(
    open_store, stock
):
    store = await open_store(artifacts=True)
    await stock.create_session(app_name="app", user_id="ann", session_id="s1")
    await store.delete(key())
    (entry,) = await Outbox(store).take_outbox(10)
    assert entry.key == key()


async def made_again(store, now=T0):
    """Create a session and return whether an earlier one of its key owes artifacts."""
    made = await store.at(now).create(key(), state=NO_STATE, ttl=TTL, metadata={})
    return made.value.owes_artifacts


@pytest.mark.parametrize("ends", ["by a sweep", "at its deadline", "by its owner"])
async def test_a_session_made_again_tells_that_the_earlier_one_owes_artifacts(open_store, ends):
    """Seen to fail when a creation that replaces an expired session notes nothing."""
    store = await open_store(artifacts=True)
    assert not await made_again(store)
    match ends:
        case "by a sweep":
            await store.at(DUE).expire_due(10)
        case "by its owner":
            await store.at(DUE - TICK).delete(key())
    assert await made_again(store, DUE)
    outbox = Outbox(store.at(DUE))
    entry = await outbox.take_outbox_of(key())
    assert entry.ended_at == (DUE - TICK if ends == "by its owner" else DUE)
    await outbox.settle_outbox(entry)
    assert await outbox.take_outbox_of(key()) is None
    await store.at(DUE).delete(key())
    assert await made_again(store, DUE + TICK)


async def test_without_artifacts_no_session_made_again_owes_any(store):
    await create(store)
    await store.at(DUE).expire_due(10)
    assert not await made_again(store, DUE)


async def test_settling_the_first_end_of_a_key_leaves_its_second_end_in_the_outbox(open_store):
    """Seen to fail when `settle_outbox` does not compare when the session ended."""
    store = await open_store(artifacts=True)
    for ended_at in (T0, T0 + HOUR):
        await create(store, now=ended_at)
        await store.at(ended_at).delete(key())
        if ended_at == T0:
            (first,) = await Outbox(store.at(T0)).take_outbox(10)
    outbox = Outbox(store.at(T0 + HOUR))
    await outbox.settle_outbox(first)
    (second,) = await outbox.take_outbox(10)
    assert (second.ended_at, second.attempts) == (T0 + HOUR, 1)
    await outbox.settle_outbox(second)
    assert not await Outbox(store.at(T0 + 3 * HOUR)).take_outbox(10)


async def test_without_artifacts_the_outbox_stays_empty(store):
    await create(store, "deleted")
    await store.at(T0).delete(key("deleted"))
    assert not await Outbox(store.at(T0)).take_outbox(10)
