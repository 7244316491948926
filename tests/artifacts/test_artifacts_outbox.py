"""The outbox of sessions that ended before their first message, on every store."""

from datetime import timedelta

from backends import GONE, HOUR, T0, create, key, message
from lapse.artifacts.outbox import Outbox


async def test_a_session_that_ends_without_a_message_is_in_the_outbox(open_store):
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
    assert set(taken) == {"purged", "deleted"}
    assert taken["purged"].ended_at == later
    assert not await outbox.take_outbox(10), "not before the next attempt"
    await outbox.settle_outbox(taken["deleted"])
    await create(store, "purged", now=later)
    (again,) = await Outbox(store.at(later + HOUR)).take_outbox(10)
    assert (again.key.session_id, again.attempts, again.lives) == ("purged", 2, True)


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
