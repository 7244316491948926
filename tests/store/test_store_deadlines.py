"""The exact instant of each deadline, for each method that compares time."""

from datetime import timedelta

import pytest

from backends import DUE, HOUR, T0, TICK, TTL, create, ids, key, levels, message, note, use
from lapse.core.errors import NoSuchSessionError, SessionExistsError, WrongStatusError
from lapse.core.lifecycle import Cause, ChangeKind, Status

GONE = T0 + timedelta(hours=24)
"""When a session created at T0 is past restoring, with the default horizon."""


async def test_read_finds_a_session_until_its_deadline_and_not_at_it(store):
    await create(store)
    assert await store.at(DUE - TICK).read(key()) is not None
    assert await store.at(DUE).read(key()) is None


async def test_list_shows_a_session_until_its_deadline_and_not_at_it(store):
    await create(store)
    for user in ("ann", None):
        assert await ids(store, DUE - TICK, user) == ["s1"]
        assert await ids(store, DUE, user) == []


async def test_the_record_reads_as_expired_at_the_deadline_without_a_sweep(store):
    await create(store)
    before = await store.at(DUE - TICK).lifecycle(key())
    at = await store.at(DUE).lifecycle(key())
    assert (before.status, before.expired_at) == (Status.WAITING, None)
    assert (at.status, at.expired_at, at.restorable_until) == (Status.EXPIRED, DUE, GONE)


async def test_a_state_event_is_held_until_the_deadline_and_refused_at_it(store):
    revision = await create(store)
    held = await store.at(DUE - TICK).append(key(), note("n1"), revision)
    with pytest.raises(NoSuchSessionError):
        await store.at(DUE).append(key(), note("n2"), held.value.revision)


async def test_a_message_before_the_deadline_only_marks_the_session_used(store):
    revision = await create(store)
    appended = await store.at(DUE - TICK).append(key(), message(), revision)
    assert [change.kind for change in appended.changes] == [ChangeKind.USED]


async def test_a_message_at_the_deadline_resurrects_the_session(store):
    revision = await create(store)
    appended = await store.at(DUE).append(key(), message(), revision)
    assert [change.kind for change in appended.changes] == [
        ChangeKind.RESURRECTED,
        ChangeKind.USED,
    ]
    assert appended.changes[0].cause is Cause.MESSAGE
    assert (await store.at(DUE).lifecycle(key())).resurrections == 1


@pytest.mark.parametrize("how", ["extend", "amend"])
async def test_a_deadline_can_be_moved_until_it_comes_and_not_at_it(store, how):
    await create(store, "early")
    await create(store, "late")

    async def move(name, now):
        if how == "extend":
            return await store.at(now).extend(key(name))
        return await store.at(now).amend(key(name), ttl=TTL)

    moved = await move("early", DUE - TICK)
    assert moved.value.expires_at == DUE - TICK + TTL
    with pytest.raises(WrongStatusError):
        await move("late", DUE)


async def test_resurrect_leaves_a_live_session_and_takes_one_that_is_due(store):
    await create(store, "live")
    await create(store, "due")
    left = await store.at(DUE - TICK).resurrect(key("live"), cause=Cause.REQUEST)
    assert (left.changes, left.value.expires_at) == ((), DUE)
    taken = await store.at(DUE).resurrect(key("due"), cause=Cause.REQUEST)
    assert taken.changes[0].kind is ChangeKind.RESURRECTED
    assert taken.value.expires_at == DUE + TTL


async def test_expire_due_takes_a_session_at_its_deadline_and_not_a_microsecond_before(store):
    await create(store)
    assert (await store.at(DUE - TICK).expire_due(10)).changes == ()
    swept = await store.at(DUE).expire_due(10)
    assert [change.record.key for change in swept.changes] == [key()]
    assert swept.changes[0].lateness == timedelta(0)


async def test_create_is_refused_until_the_deadline_and_not_at_it(store):
    await create(store)
    with pytest.raises(SessionExistsError):
        await create(store, now=DUE - TICK)
    await create(store, now=DUE)


async def test_an_expired_session_is_restorable_until_the_last_moment_and_not_at_it(store):
    early, late = await create(store, "early"), await create(store, "late")
    await create(store, "asked")
    await store.at(DUE).expire_due(10)
    await store.at(GONE - TICK).append(key("early"), message(), early)
    with pytest.raises(NoSuchSessionError):
        await store.at(GONE).append(key("late"), message(), late)
    assert (await store.at(GONE - TICK).lifecycle(key("asked"))).status is Status.EXPIRED
    assert await store.at(GONE).lifecycle(key("asked")) is None
    with pytest.raises(NoSuchSessionError):
        await store.at(GONE).resurrect(key("asked"), cause=Cause.REQUEST)
    await store.at(GONE - TICK).resurrect(key("asked"), cause=Cause.REQUEST)


@pytest.mark.parametrize("act", ["amend", "extend"])
async def test_a_session_past_restoring_is_unknown_without_a_sweep(store, act):
    await create(store)
    await store.at(DUE).expire_due(10)
    with pytest.raises(NoSuchSessionError):
        await (
            store.at(GONE).amend(key(), metadata={"a": 1})
            if act == "amend"
            else store.at(GONE).extend(key())
        )


async def test_purge_due_takes_a_session_at_its_purge_time_and_not_a_microsecond_before(store):
    await create(store)
    await store.at(DUE).expire_due(10)
    assert (await store.at(GONE - TICK).purge_due(10)).changes == ()
    swept = await store.at(GONE).purge_due(10)
    assert [change.kind for change in swept.changes] == [ChangeKind.PURGED]
    assert await levels(store) == {}


async def test_a_session_is_restorable_for_an_hour_however_late_the_sweep(store):
    revision = await create(store)
    late = T0 + timedelta(days=5)
    swept = await store.at(late).expire_due(10)
    assert swept.changes[0].record.restorable_until == late + HOUR
    assert swept.changes[0].lateness == late - DUE
    assert (await store.at(late + HOUR - TICK).purge_due(10)).value == 0
    await store.at(late + HOUR - TICK).append(key(), message(), revision)


async def test_a_session_long_overdue_reads_the_same_before_the_sweep_as_after_it(store):
    late = T0 + timedelta(days=5)
    await create(store)
    unswept = await store.at(late).lifecycle(key())
    await store.at(late).expire_due(10)
    swept = await store.at(late).lifecycle(key())
    assert unswept is not None
    assert (unswept.status, unswept.restorable_until) == (Status.EXPIRED, late + HOUR)
    assert (swept.status, swept.restorable_until) == (Status.EXPIRED, late + HOUR)


async def test_time_to_next_falls_to_zero_at_the_deadline_and_stays_there(store):
    await create(store)
    assert await store.at(DUE - TICK).time_to_next() == TICK
    assert await store.at(DUE).time_to_next() == timedelta(0)
    assert await store.at(DUE + HOUR).time_to_next() == timedelta(0)


async def test_a_used_session_has_no_deadline_at_all(store):
    await use(store)
    far = T0 + timedelta(days=4000)
    assert await store.at(far).time_to_next() is None
    assert (await store.at(far).expire_due(10)).value == 0
    assert (await store.at(far).purge_due(10)).value == 0
    assert await ids(store, far) == ["s1"]
    record = await store.at(far).lifecycle(key())
    assert (record.status, record.expires_at, record.restorable_until) == (Status.USED, None, None)
    assert record.ttl == TTL
