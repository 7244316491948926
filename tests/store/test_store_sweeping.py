"""Batches of a sweep: what they take, in which order, and what they return."""

from datetime import timedelta

import pytest

from backends import DUE, HOUR, T0, TICK, TTL, create, ids, key, message, note, use
from lapse.errors import NoSuchSessionError, WrongStatusError
from lapse.lifecycle import Cause, Change, ChangeKind, Lifecycle, Status
from lapse.operating import Tally

DAY = timedelta(hours=24)


def names(swept):
    return [change.record.key.session_id for change in swept.changes]


async def test_an_expiry_is_returned_exactly(store):
    await create(store, metadata={"m": 1})
    at = DUE + timedelta(seconds=2)
    record = Lifecycle(
        key=key(),
        status=Status.EXPIRED,
        created_at=T0,
        ttl=TTL,
        expires_at=DUE,
        expired_at=at,
        restorable_until=T0 + DAY,
        metadata={"m": 1},
    )
    change = Change(ChangeKind.EXPIRED, at, record)
    assert (await store.expire_due(10, now=at)).changes == (change,)
    assert await store.lifecycle(key(), now=at) == record
    assert change.lateness == timedelta(seconds=2)
    assert (await store.expire_due(10, now=at)).changes == ()


async def test_a_purge_is_returned_exactly(store):
    await create(store)
    expired = (await store.expire_due(10, now=DUE)).changes[0].record
    change = Change(ChangeKind.PURGED, T0 + DAY, expired)
    assert (await store.purge_due(10, now=T0 + DAY)).changes == (change,)
    assert (await store.purge_due(10, now=T0 + DAY)).changes == ()
    assert await store.lifecycle(key(), now=T0 + DAY) is None


async def test_a_sweep_takes_the_due_and_leaves_the_waiting_and_the_used(store):
    await create(store, "due")
    await use(store, "used")
    await create(store, "waiting", now=T0 + TICK)
    assert names(await store.expire_due(10, now=DUE)) == ["due"]
    assert await ids(store, DUE) == ["used", "waiting"]


async def test_batches_take_no_more_than_their_limit_and_the_longest_overdue_first(store):
    for number in (3, 1, 4, 0, 2):
        await create(store, f"s{number}", now=T0 + number * TICK)
    taken = []
    for expected in (2, 2, 1, 0):
        swept = await store.expire_due(2, now=DUE + HOUR)
        assert swept.taken == len(swept.changes) == expected
        taken.append(sorted(names(swept)))
    assert taken == [["s0", "s1"], ["s2", "s3"], ["s4"], []]


async def test_purges_come_in_batches_with_the_longest_overdue_first(store):
    for number in (2, 0, 1):
        await create(store, f"s{number}", now=T0 + number * TICK)
    await store.expire_due(10, now=DUE + HOUR)
    late = T0 + DAY + HOUR
    assert sorted(names(await store.purge_due(2, now=late))) == ["s0", "s1"]
    assert names(await store.purge_due(2, now=late)) == ["s2"]
    assert (await store.purge_due(2, now=late)).changes == ()


async def test_time_to_next_is_that_of_the_nearest_deadline_of_either_kind(store):
    assert await store.time_to_next(now=T0) is None
    await create(store, "s1")
    await create(store, "s2", ttl=HOUR)
    assert await store.time_to_next(now=T0) == TTL
    await store.expire_due(10, now=DUE)
    assert await store.time_to_next(now=DUE) == HOUR - TTL
    await store.delete(key("s2"), now=DUE)
    assert await store.time_to_next(now=DUE) == T0 + DAY - DUE
    await store.purge_due(10, now=T0 + DAY)
    assert await store.time_to_next(now=T0 + DAY) is None


async def test_tallies_count_the_records_by_app_and_status(store):
    await create(store, "due", ttl=TICK)
    await store.expire_due(10, now=T0 + TICK)
    await create(store, "w1")
    await create(store, "w2")
    await create(store, key("w3", user="bob", app="other"))
    await use(store, "used")
    assert sorted(await store.tallies(), key=lambda tally: (tally.app_name, tally.status)) == [
        Tally("app", Status.EXPIRED, 1),
        Tally("app", Status.USED, 1),
        Tally("app", Status.WAITING, 2),
        Tally("other", Status.WAITING, 1),
    ]


async def test_an_extended_session_is_taken_at_its_new_deadline_only(store):
    await create(store)
    await store.extend(key(), now=DUE - TICK)
    assert (await store.expire_due(10, now=DUE)).taken == 0
    assert names(await store.expire_due(10, now=DUE + TTL - TICK)) == ["s1"]


async def test_a_resurrected_session_expires_again_and_stays_restorable_from_its_creation(store):
    await create(store)
    await store.expire_due(10, now=DUE)
    await store.resurrect(key(), cause=Cause.REQUEST, now=T0 + DAY - TICK)
    again = T0 + DAY - TICK + TTL
    (change,) = (await store.expire_due(10, now=again)).changes
    assert change.record.resurrections == 1
    assert change.record.restorable_until == again + HOUR


async def test_an_expired_session_that_heard_a_message_is_never_purged(store):
    revision = await create(store)
    await store.expire_due(10, now=DUE)
    await store.append(key(), message(), revision, now=DUE)
    assert (await store.purge_due(10, now=T0 + 9 * DAY)).taken == 0
    assert await ids(store, T0 + 9 * DAY) == ["s1"]


async def test_with_no_horizon_a_session_is_gone_at_its_deadline_swept_or_not(open_store):
    store = await open_store(horizon=timedelta(0))
    revision = await create(store)
    assert await store.lifecycle(key(), now=DUE - TICK) is not None
    assert await store.lifecycle(key(), now=DUE) is None
    assert await store.read(key(), now=DUE) is None
    for ask in (
        store.append(key(), message(), revision, now=DUE),
        store.append(key(), note(), revision, now=DUE),
        store.resurrect(key(), cause=Cause.REQUEST, now=DUE),
        store.amend(key(), metadata={"a": 1}, now=DUE),
        store.amend(key(), ttl=HOUR, now=DUE),
        store.extend(key(), now=DUE),
    ):
        with pytest.raises(NoSuchSessionError):
            await ask


async def test_with_no_horizon_one_sweep_expires_and_purges(open_store):
    store = await open_store(horizon=timedelta(0))
    await create(store)
    await use(store, "used")
    (expired,) = (await store.expire_due(10, now=DUE)).changes
    assert expired.record.restorable_until == DUE
    assert names(await store.purge_due(10, now=DUE)) == ["s1"]
    assert await ids(store, DUE) == ["used"]


async def test_with_no_horizon_a_message_in_time_is_kept(open_store):
    store = await open_store(horizon=timedelta(0))
    revision = await create(store)
    await store.append(key(), message(), revision, now=DUE - TICK)
    assert (await store.expire_due(10, now=DUE)).taken == 0


async def test_a_longer_horizon_keeps_sessions_restorable_longer(open_store):
    store = await open_store(horizon=3 * DAY)
    revision = await create(store)
    await store.expire_due(10, now=DUE)
    assert (await store.purge_due(10, now=T0 + 3 * DAY - TICK)).taken == 0
    await store.append(key(), message(), revision, now=T0 + 3 * DAY - TICK)


async def test_switched_off_nothing_expires_and_nothing_is_hidden(open_store):
    store = await open_store(enforced=False)
    revision = await create(store)
    far = T0 + 99 * DAY
    assert (await store.expire_due(10, now=far)).changes == ()
    assert (await store.purge_due(10, now=far)).changes == ()
    assert await store.time_to_next(now=far) is None
    assert await ids(store, far) == await ids(store, far, None) == ["s1"]
    assert await store.read(key(), now=far) is not None
    record = await store.lifecycle(key(), now=far)
    assert (record.status, record.expires_at) == (Status.WAITING, DUE)
    outcome = await store.resurrect(key(), cause=Cause.REQUEST, now=far)
    assert outcome.change is None
    revision = (await store.append(key(), note(), revision, now=far)).revision
    appended = await store.append(key(), message(at=T0 + TICK), revision, now=far)
    assert [change.kind for change in appended.changes] == [ChangeKind.USED]
    assert appended.changes[0].record.resurrections == 0


async def test_switched_off_a_session_past_its_deadline_can_be_extended_and_amended(open_store):
    store = await open_store(enforced=False)
    await create(store)
    assert (await store.extend(key(), now=DUE)).record.expires_at == DUE + TTL
    assert (await store.amend(key(), ttl=HOUR, now=DUE + TTL)).record.ttl == HOUR


async def test_switched_off_what_had_expired_is_shown_and_takes_messages(store, reopen):
    revision = await create(store, "said")
    other = await create(store, "noted")
    await store.expire_due(10, now=DUE)
    far = T0 + 99 * DAY
    off = await reopen(enforced=False)
    assert await ids(off, far) == ["noted", "said"]
    await off.append(key("noted"), note(), other, now=far)
    await off.append(key("said"), message(), revision, now=far)
    assert (await off.lifecycle(key("said"), now=far)).status is Status.USED


async def test_switched_on_again_deadlines_stand_as_they_were_recorded(open_store, reopen):
    off = await reopen(enforced=False)
    await create(off)
    on = await reopen()
    assert await ids(on, DUE) == []
    assert (await on.expire_due(10, now=DUE)).changes[0].record.expires_at == DUE


async def test_refusals_tell_the_status(store):
    await use(store)
    with pytest.raises(WrongStatusError, match="used"):
        await store.extend(key(), now=T0)
