"""Batches of a sweep: what they take, in which order, and what they return."""

from contextlib import suppress
from datetime import timedelta

import pytest

from backends import DUE, HOUR, T0, TICK, TTL, create, ids, key, levels, message, note, use, words
from lapse.core.errors import NoSuchSessionError, WrongStatusError
from lapse.core.lifecycle import Cause, Change, ChangeKind, Lifecycle, Status
from lapse.core.messages import UsedBy

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
    assert (await store.at(at).expire_due(10)).changes[:] == [change]
    assert await store.at(at).lifecycle(key()) == record
    assert change.lateness == timedelta(seconds=2)
    assert (await store.at(at).expire_due(10)).changes == ()


async def test_a_purge_is_returned_exactly(store):
    await create(store)
    expired = (await store.at(DUE).expire_due(10)).changes[0].record
    change = Change(ChangeKind.PURGED, T0 + DAY, expired)
    assert (await store.at(T0 + DAY).purge_due(10)).changes[:] == [change]
    assert (await store.at(T0 + DAY).purge_due(10)).changes == ()
    assert await store.at(T0 + DAY).lifecycle(key()) is None


async def test_a_sweep_takes_due_sessions_and_leaves_waiting_and_used_ones(store):
    await create(store, "due")
    await use(store, "used")
    await create(store, "waiting", now=T0 + TICK)
    assert names(await store.at(DUE).expire_due(10)) == ["due"]
    assert await ids(store, DUE) == ["used", "waiting"]


async def test_a_batch_of_expiries_has_the_longest_overdue_sessions_up_to_its_limit(store):
    for number in (3, 1, 4, 0, 2):
        await create(store, f"s{number}", now=T0 + number * TICK)
    taken = []
    for expected in (2, 2, 1, 0):
        swept = await store.at(DUE + HOUR).expire_due(2)
        assert swept.value == len(swept.changes) == expected
        taken.append(sorted(names(swept)))
    assert taken == [["s0", "s1"], ["s2", "s3"], ["s4"], []]


async def test_a_batch_of_purges_has_the_longest_overdue_sessions_up_to_its_limit(store):
    for number in (2, 0, 1):
        await create(store, f"s{number}", now=T0 + number * TICK)
    await store.at(DUE + HOUR).expire_due(10)
    late = T0 + DAY + HOUR
    assert sorted(names(await store.at(late).purge_due(2))) == ["s0", "s1"]
    assert names(await store.at(late).purge_due(2)) == ["s2"]
    assert (await store.at(late).purge_due(2)).changes == ()


async def test_time_to_next_is_that_of_the_nearest_expiry_or_purge(store):
    assert await store.at(T0).time_to_next() is None
    await create(store, "s1")
    await create(store, "s2", ttl=HOUR)
    assert await store.at(T0).time_to_next() == TTL
    await store.at(DUE).expire_due(10)
    assert await store.at(DUE).time_to_next() == HOUR - TTL
    await store.at(DUE).delete(key("s2"))
    assert await store.at(DUE).time_to_next() == T0 + DAY - DUE
    await store.at(T0 + DAY).purge_due(10)
    assert await store.at(T0 + DAY).time_to_next() is None


async def test_the_levels_count_the_records_by_app_and_status(store):
    await create(store, "due", ttl=TICK)
    await store.at(T0 + TICK).expire_due(10)
    await create(store, "w1")
    await create(store, "w2")
    await create(store, key("w3", user="bob", app="other"))
    await use(store, "used")
    assert await levels(store) == {
        ("app", Status.EXPIRED): 1,
        ("app", Status.USED): 1,
        ("app", Status.WAITING): 2,
        ("other", Status.WAITING): 1,
    }


async def test_an_extended_session_expires_at_its_new_deadline_only(store):
    await create(store)
    await store.at(DUE - TICK).extend(key())
    assert (await store.at(DUE).expire_due(10)).value == 0
    assert names(await store.at(DUE + TTL - TICK).expire_due(10)) == ["s1"]


async def test_a_resurrected_session_expires_again_and_stays_restorable_from_its_creation(store):
    await create(store)
    await store.at(DUE).expire_due(10)
    await store.at(T0 + DAY - TICK).resurrect(key(), cause=Cause.REQUEST)
    again = T0 + DAY - TICK + TTL
    (change,) = (await store.at(again).expire_due(10)).changes
    assert change.record.resurrections == 1
    assert change.record.restorable_until == again + HOUR


async def test_an_expired_session_that_got_a_message_is_never_purged(store):
    revision = await create(store)
    await store.at(DUE).expire_due(10)
    await store.at(DUE).append(key(), message(), revision)
    assert (await store.at(T0 + 9 * DAY).purge_due(10)).value == 0
    assert await ids(store, T0 + 9 * DAY) == ["s1"]


async def test_without_a_horizon_a_session_is_gone_at_its_deadline_even_before_a_sweep(open_store):
    store = await open_store(horizon=timedelta(0))
    revision = await create(store)
    assert await store.at(DUE - TICK).lifecycle(key()) is not None
    assert await store.at(DUE).lifecycle(key()) is None
    assert await store.at(DUE).read(key()) is None
    for ask in (
        store.at(DUE).append(key(), message(), revision),
        store.at(DUE).append(key(), note(), revision),
        store.at(DUE).resurrect(key(), cause=Cause.REQUEST),
        store.at(DUE).amend(key(), metadata={"a": 1}),
        store.at(DUE).amend(key(), ttl=HOUR),
        store.at(DUE).extend(key()),
    ):
        with pytest.raises(NoSuchSessionError):
            await ask


async def test_without_a_horizon_a_sweep_of_the_store_expires_and_purges(open_store):
    store = await open_store(horizon=timedelta(0))
    await create(store)
    await use(store, "used")
    (expired,) = (await store.at(DUE).expire_due(10)).changes
    assert expired.record.restorable_until == DUE
    assert names(await store.at(DUE).purge_due(10)) == ["s1"]
    assert await ids(store, DUE) == ["used"]


async def test_without_a_horizon_a_session_with_a_message_before_its_deadline_is_kept(open_store):
    store = await open_store(horizon=timedelta(0))
    revision = await create(store)
    await store.at(DUE - TICK).append(key(), message(), revision)
    assert (await store.at(DUE).expire_due(10)).value == 0


async def test_a_longer_horizon_keeps_sessions_restorable_longer(open_store):
    store = await open_store(horizon=3 * DAY)
    revision = await create(store)
    await store.at(DUE).expire_due(10)
    assert (await store.at(T0 + 3 * DAY - TICK).purge_due(10)).value == 0
    await store.at(T0 + 3 * DAY - TICK).append(key(), message(), revision)


async def test_with_clean_up_disabled_the_store_expires_and_hides_nothing(open_store):
    store = await open_store(enforced=False)
    revision = await create(store)
    far = T0 + 99 * DAY
    assert (await store.at(far).expire_due(10)).changes == ()
    assert (await store.at(far).purge_due(10)).changes == ()
    assert await store.at(far).time_to_next() is None
    assert await ids(store, far) == await ids(store, far, None) == ["s1"]
    assert await store.at(far).read(key()) is not None
    record = await store.at(far).lifecycle(key())
    assert (record.status, record.expires_at) == (Status.WAITING, DUE)
    outcome = await store.at(far).resurrect(key(), cause=Cause.REQUEST)
    assert outcome.changes == ()
    revision = (await store.at(far).append(key(), note(), revision)).value.revision
    appended = await store.at(far).append(key(), message(at=T0 + TICK), revision)
    assert [change.kind for change in appended.changes] == [ChangeKind.USED]
    assert appended.changes[0].record.resurrections == 0


async def test_with_clean_up_disabled_a_session_past_its_deadline_can_be_extended_and_amended(
    open_store,
):
    store = await open_store(enforced=False)
    await create(store)
    assert (await store.at(DUE).extend(key())).value.expires_at == DUE + TTL
    assert (await store.at(DUE + TTL).amend(key(), ttl=HOUR)).value.ttl == HOUR


async def test_with_clean_up_disabled_an_expired_session_is_shown_and_takes_messages(store, reopen):
    revision = await create(store, "said")
    other = await create(store, "noted")
    other = (await store.at(T0).append(key("noted"), note("n0"), other)).value.revision
    await store.at(DUE).expire_due(10)
    far = T0 + 99 * DAY
    off = await reopen(enforced=False)
    assert await ids(off, far) == ["noted", "said"]
    assert [event.id for event in (await off.at(far).read(key("noted"))).events] == ["n0"]
    await off.at(far).append(key("noted"), note(at=T0 + TICK), other)
    assert [event.id for event in (await off.at(far).read(key("noted"))).events] == ["n0", "n1"]
    await off.at(far).append(key("said"), message(), revision)
    assert (await off.at(far).lifecycle(key("said"))).status is Status.USED


async def test_with_clean_up_enabled_again_the_recorded_deadlines_hold(open_store, reopen):
    off = await reopen(enforced=False)
    await create(off)
    on = await reopen()
    assert await ids(on, DUE) == []
    assert (await on.at(DUE).expire_due(10)).changes[0].record.expires_at == DUE


async def test_the_error_of_a_refused_change_names_the_status(store):
    await use(store)
    with pytest.raises(WrongStatusError, match="used"):
        await store.at(T0).extend(key())


async def test_a_delete_counts_while_its_session_is_restorable(store):
    for name, early in (("s1", TICK), ("s2", TICK), ("s3", 0 * TICK)):
        await create(store, name)
        expired = (await store.at(T0).expire(key(name))).value
        with suppress(NoSuchSessionError):
            await store.at(expired.restorable_until - early).delete(key(name))
    counts = (await store.at(DUE).overview(since=HOUR)).counts
    assert [one.sessions for one in counts if one.kind is ChangeKind.DELETED] == [2]


async def test_without_a_horizon_a_delete_counts_until_the_deadline(open_store):
    store = await open_store(horizon=timedelta(0))
    for name, early in (("s1", TICK), ("s2", TICK), ("s3", 0 * TICK)):
        await create(store, name)
        with suppress(NoSuchSessionError):
            await store.at(DUE - early).delete(key(name))
    counts = (await store.at(DUE).overview(since=HOUR)).counts
    assert [one.sessions for one in counts if one.kind is ChangeKind.DELETED] == [2]


async def test_without_a_horizon_nothing_changes_a_session_from_its_deadline_on(open_store):
    store = await open_store(horizon=timedelta(0))
    revision = await create(store, used_by=UsedBy.USER)
    with pytest.raises(NoSuchSessionError):
        await store.at(DUE).amend(key(), metadata={"late": True})
    for say in (words, message):
        with pytest.raises(NoSuchSessionError):
            await store.at(DUE).append(key(), say(at=DUE), revision)
    amended = await store.at(DUE - TICK).amend(key(), metadata={"late": False})
    assert amended.value.metadata == {"late": False}
