"""What owners and operators ask for: extend, amend, expire, resurrect and delete."""

from datetime import timedelta

import pytest

from backends import DUE, GONE, HOUR, T0, TICK, TTL, create, ids, key, levels, message, note, use
from lapse.core.documents import LARGEST_METADATA
from lapse.core.errors import InvalidValueError, NoSuchSessionError, WrongStatusError
from lapse.core.lifecycle import Cause, Change, ChangeKind, Status
from lapse.store.records import Result

DAY = timedelta(hours=24)
LATER = T0 + timedelta(minutes=10)


async def set_status(store, status):
    """Make the session s1 of a status at LATER."""
    match status:
        case "used":
            await use(store)
        case "expired":
            await create(store, ttl=TICK)
            await store.at(LATER).expire_due(10)
        case "due":
            await create(store, ttl=TICK)
        case "waiting":
            await create(store)


async def test_extend_gives_a_fresh_ttl_from_now(store):
    await create(store)
    outcome = await store.at(LATER).extend(key())
    assert outcome.changes[0] == Change(ChangeKind.EXTENDED, LATER, outcome.value)
    assert outcome.value == await store.at(LATER).lifecycle(key())
    assert (outcome.value.expires_at, outcome.value.ttl) == (LATER + TTL, TTL)
    assert (await store.at(LATER + TTL - TICK).expire_due(10)).value == 0
    assert (await store.at(LATER + TTL).expire_due(10)).value == 1


async def test_extend_goes_no_further_than_the_horizon_from_the_creation(store):
    await create(store, ttl=timedelta(hours=20))
    outcome = await store.at(T0 + timedelta(hours=10)).extend(key())
    assert outcome.value.expires_at == T0 + DAY
    outcome = await store.at(T0 + timedelta(hours=23)).extend(key())
    assert outcome.value.expires_at == T0 + DAY


async def test_extend_never_brings_a_deadline_nearer(store):
    await create(store, ttl=timedelta(hours=30))
    assert (await store.at(LATER).extend(key())).value.expires_at == T0 + timedelta(hours=30)


async def test_without_a_horizon_a_session_can_be_extended_for_a_day(open_store):
    store = await open_store(horizon=timedelta(0))
    await create(store, ttl=timedelta(hours=20))
    outcome = await store.at(T0 + timedelta(hours=10)).extend(key())
    assert outcome.value.expires_at == T0 + DAY


@pytest.mark.parametrize("status", ["used", "expired", "due"])
async def test_only_a_waiting_session_can_be_extended_or_given_a_ttl(store, status):
    await set_status(store, status)
    before = await store.at(LATER).lifecycle(key())
    with pytest.raises(WrongStatusError):
        await store.at(LATER).extend(key())
    with pytest.raises(WrongStatusError):
        await store.at(LATER).amend(key(), ttl=HOUR, metadata={"a": 1})
    assert await store.at(LATER).lifecycle(key()) == before


async def test_every_request_on_an_unknown_session_is_refused(store):
    for ask in (
        store.at(T0).extend(key()),
        store.at(T0).amend(key(), metadata={"a": 1}),
        store.at(T0).amend(key(), ttl=HOUR),
        store.at(T0).resurrect(key(), cause=Cause.REQUEST),
        store.at(T0).expire(key()),
    ):
        with pytest.raises(NoSuchSessionError):
            await ask
    assert await store.at(T0).lifecycle(key()) is None


async def test_an_amended_ttl_counts_from_now_and_may_bring_the_deadline_nearer(store):
    await create(store)
    outcome = await store.at(LATER).amend(key(), ttl=5 * TICK)
    assert outcome.changes[0] == Change(ChangeKind.AMENDED, LATER, outcome.value)
    assert outcome.value == await store.at(LATER).lifecycle(key())
    assert (outcome.value.ttl, outcome.value.expires_at) == (5 * TICK, LATER + 5 * TICK)
    assert (await store.at(LATER + 5 * TICK).expire_due(10)).value == 1
    back = await store.at(DUE).resurrect(key(), cause=Cause.REQUEST)
    assert back.value.expires_at == DUE + 5 * TICK


@pytest.mark.parametrize("status", ["waiting", "used", "expired", "due"])
async def test_metadata_of_any_session_merges_by_top_level_keys(store, status):
    await set_status(store, status)
    await store.at(LATER).amend(key(), metadata={"a": 1, "box": {"x": 1}, "é": "ü"})
    outcome = await store.at(LATER).amend(key(), metadata={"box": {"y": 2}, "a": None})
    assert outcome.value.metadata == {"a": None, "box": {"y": 2}, "é": "ü"}
    assert await store.at(LATER).lifecycle(key()) == outcome.value
    expected = "expired" if status == "due" else status
    assert outcome.value.status == expected


async def test_metadata_and_ttl_are_amended_together(store):
    await create(store, metadata={"a": 1})
    outcome = await store.at(LATER).amend(key(), metadata={"b": 2}, ttl=HOUR)
    assert (outcome.value.metadata, outcome.value.ttl) == ({"a": 1, "b": 2}, HOUR)


async def test_metadata_may_grow_to_its_limit_and_not_over_it(store):
    await create(store, metadata={"a": ""})
    filling = LARGEST_METADATA - len('{"a": "", "b": ""}')
    full = await store.at(T0).amend(key(), metadata={"b": "x" * filling})
    with pytest.raises(InvalidValueError) as refused:
        await store.at(LATER).amend(key(), metadata={"a": "y"}, ttl=HOUR)
    assert refused.value.field == "metadata"
    assert await store.at(LATER).lifecycle(key()) == full.value
    smaller = await store.at(LATER).amend(key(), metadata={"b": "x"})
    assert smaller.value.metadata == {"a": "", "b": "x"}


async def test_resurrect_gives_an_expired_session_a_fresh_ttl_and_counts(store):
    await create(store, state={"a": 1}, metadata={"m": 1})
    for number, now in enumerate((DUE, DUE + HOUR), 1):
        await store.at(now).expire_due(10)
        outcome = await store.at(now).resurrect(key(), cause=Cause.REQUEST)
        assert outcome.changes[0] == Change(
            ChangeKind.RESURRECTED, now, outcome.value, Cause.REQUEST
        )
        assert outcome.value == await store.at(now).lifecycle(key())
        assert (outcome.value.status, outcome.value.resurrections) == (Status.WAITING, number)
        assert (outcome.value.expires_at, outcome.value.expired_at) == (now + TTL, None)
    found = await store.at(DUE + HOUR).read(key())
    assert found.state == {"a": 1}
    assert outcome.value.metadata == {"m": 1}


async def test_expire_makes_the_deadline_now(store):
    await create(store, state={"a": 1})
    outcome = await store.at(LATER).expire(key())
    assert outcome.changes[0] == Change(ChangeKind.EXPIRED, LATER, outcome.value)
    assert outcome.changes[0].lateness == timedelta(0)
    assert outcome.value == await store.at(LATER).lifecycle(key())
    assert (outcome.value.status, outcome.value.expires_at) == (Status.EXPIRED, LATER)
    assert (outcome.value.expired_at, outcome.value.restorable_until) == (LATER, T0 + DAY)
    assert await store.at(LATER).read(key()) is None
    assert (await store.at(DUE).expire_due(10)).value == 0


async def test_an_old_session_that_was_expired_by_hand_is_restorable_for_an_hour(store):
    await create(store, ttl=timedelta(hours=30))
    late = T0 + timedelta(hours=29)
    assert (await store.at(late).expire(key())).value.restorable_until == late + HOUR


async def test_a_session_that_was_expired_by_hand_can_be_resurrected(store):
    revision = await create(store, state={"a": 1})
    await store.at(LATER).expire(key())
    back = await store.at(LATER).resurrect(key(), cause=Cause.REQUEST)
    assert (back.value.status, back.value.expires_at) == (Status.WAITING, LATER + TTL)
    await store.at(LATER).expire(key())
    appended = await store.at(LATER).append(key(), message(at=LATER), revision)
    kinds = [change.kind for change in appended.changes]
    assert kinds == [ChangeKind.RESURRECTED, ChangeKind.USED]


@pytest.mark.parametrize("status", ["expired", "due"])
async def test_expire_leaves_an_expired_session_unchanged(store, status):
    await set_status(store, status)
    before = await store.at(LATER).lifecycle(key())
    outcome = await store.at(LATER).expire(key())
    assert (outcome.value, outcome.changes) == (before, ())
    assert await store.at(LATER).lifecycle(key()) == before


async def test_a_used_session_cannot_be_expired_by_hand(store):
    await use(store)
    before = await store.at(LATER).lifecycle(key())
    with pytest.raises(WrongStatusError):
        await store.at(LATER).expire(key())
    assert await store.at(LATER).lifecycle(key()) == before


async def test_a_session_that_stock_adk_made_cannot_be_expired_by_hand(store, stock):
    await stock.create_session(app_name="app", user_id="ann", session_id="s1")
    with pytest.raises(WrongStatusError):
        await store.expire(key())
    assert (await store.lifecycle(key())).status is Status.ORPHAN


async def test_without_a_horizon_the_next_sweep_purges_a_session_expired_by_hand(open_store):
    store = await open_store(horizon=timedelta(0))
    await create(store)
    assert (await store.at(LATER).expire(key())).changes[0].kind is ChangeKind.EXPIRED
    assert await store.at(LATER).time_to_next() == timedelta(0)
    with pytest.raises(NoSuchSessionError):
        await store.at(LATER).expire(key())
    assert [change.kind for change in (await store.at(LATER).purge_due(9)).changes] == [
        ChangeKind.PURGED
    ]


async def test_no_session_can_be_expired_by_hand_while_clean_up_is_disabled(open_store):
    store = await open_store(enforced=False)
    await create(store)
    with pytest.raises(WrongStatusError):
        await store.at(LATER).expire(key())
    assert await ids(store, LATER) == ["s1"]


@pytest.mark.parametrize("cause", list(Cause))
async def test_the_change_of_a_resurrection_says_what_caused_it(store, cause):
    await create(store)
    outcome = await store.at(DUE).resurrect(key(), cause=cause)
    assert outcome.changes[0].cause is cause


@pytest.mark.parametrize("status", ["waiting", "used"])
async def test_resurrect_leaves_a_living_session_unchanged(store, status):
    await set_status(store, status)
    before = await store.at(LATER).lifecycle(key())
    outcome = await store.at(LATER).resurrect(key(), cause=Cause.REQUEST)
    assert (outcome.value, outcome.changes) == (before, ())
    assert await store.at(LATER).lifecycle(key()) == before


@pytest.mark.parametrize("status", ["waiting", "used", "expired", "due"])
async def test_delete_removes_a_session_of_any_status_with_all_its_data(store, status):
    await set_status(store, status)
    before = await store.at(LATER).lifecycle(key())
    assert await store.at(LATER).delete(key()) == Result(
        None, (Change(ChangeKind.DELETED, LATER, before),)
    )
    assert await store.at(LATER).delete(key()) == GONE
    assert await store.at(LATER).lifecycle(key()) is None
    assert await store.at(LATER).read(key()) is None
    assert await ids(store, LATER) == []
    assert await levels(store) == {}
    assert await store.at(LATER).time_to_next() is None
    with pytest.raises(NoSuchSessionError):
        await store.at(LATER).resurrect(key(), cause=Cause.REQUEST)
    created = await create(store, now=LATER)
    await store.at(LATER).append(key(), message("m1", at=LATER), created)
    assert len((await store.at(LATER).read(key())).events) == 1


async def test_delete_leaves_other_sessions_and_app_and_user_state(store):
    await create(store, state={"app:tone": "dry", "user:name": "Ann"})
    for other in (key("s2"), key(user="bob"), key(app="other")):
        await create(store, other)
    await store.at(T0).delete(key())
    assert await ids(store, T0, None) == ["s2", "s1"]
    assert (await store.at(T0).read(key("s2"))).state == {"app:tone": "dry", "user:name": "Ann"}
    assert await store.at(T0).read(key(app="other")) is not None


async def test_the_held_events_of_a_deleted_session_do_not_pass_to_the_next(store):
    revision = await create(store)
    await store.at(T0).append(key(), note(), revision)
    await store.at(T0).delete(key())
    revision = await create(store, now=LATER)
    await store.at(LATER).append(key(), message(at=LATER), revision)
    assert [event.id for event in (await store.at(LATER).read(key())).events] == ["m1"]
