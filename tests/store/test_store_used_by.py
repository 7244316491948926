"""Sessions that only the user's message makes used: what the agent says before is held."""

from datetime import timedelta

import pytest

from backends import DUE, HOUR, T0, TICK, TTL, create, ids, key, message, note, step, words
from lapse.core.errors import (
    InvalidValueError,
    NoSuchSessionError,
    OutdatedSessionError,
)
from lapse.core.lifecycle import HELD_BYTES, HELD_EVENTS, Cause, ChangeKind, Status
from lapse.core.messages import UsedBy

HELD_FOR = timedelta(seconds=10)
FEW_MINUTES = T0 + timedelta(minutes=3)


async def create_for_user(store, name="s1", **more):
    return await create(store, name, used_by=UsedBy.USER, **more)


async def append(store, at, event, revision):
    return await store.at(at).append(key(), event, revision)


async def test_what_the_agent_says_leaves_the_session_waiting_and_can_be_read(store):
    """Seen to fail with `first_message` that does not ask for the rule."""
    revision = await create_for_user(store)
    greeted = await append(store, T0, words(state={"a": 1, "user:n": 2}), revision)
    assert greeted.changes == ()
    found = await store.at(T0).read(key())
    assert [event.id for event in found.events] == ["w1"]
    assert (found.state, found.awaits_user) == ({"a": 1, "user:n": 2}, True)
    record = await store.at(T0).lifecycle(key())
    assert (record.status, record.first_message_at) == (Status.WAITING, None)
    assert (record.used_by, record.agent_spoke) == (UsedBy.USER, True)
    assert (await store.at(DUE).expire_due(10)).value == 1
    assert await ids(store, DUE) == []


@pytest.mark.parametrize("used_by", UsedBy)
async def test_the_rule_of_a_session_is_that_of_its_creation(store, used_by):
    """Seen to fail with `create` over an expired session that keeps the old one's rule."""
    other = next(rule for rule in UsedBy if rule is not used_by)
    await create(store, used_by=other)
    await store.at(T0).append(key(), step(), (await store.at(T0).read(key())).revision)
    revision = await create(store, now=DUE, used_by=used_by)
    spoken = await append(store, DUE, words(at=DUE), revision)
    assert bool(spoken.changes) == (used_by is UsedBy.ANYONE)
    record = await store.at(DUE).lifecycle(key())
    assert (record.used_by, record.agent_spoke) == (used_by, used_by is UsedBy.USER)


async def test_the_users_message_takes_along_what_the_agent_said_in_order(store):
    revision = await create_for_user(store)
    for number, event in enumerate([words("w1"), step("c1"), words("w2")]):
        at = T0 + number * TICK
        revision = (await append(store, at, event, revision)).value.revision
    used = await append(store, FEW_MINUTES, message(at=FEW_MINUTES), revision)
    assert [change.kind for change in used.changes] == [ChangeKind.USED]
    assert used.changes[0].age == timedelta(minutes=3)
    found = await store.at(FEW_MINUTES).read(key())
    assert [event.id for event in found.events] == ["c1", "w1", "w2", "m1"]
    assert (found.state, found.awaits_user) == ({"step": "c1"}, False)
    later = await append(store, FEW_MINUTES, words("w3", at=FEW_MINUTES + TICK), found.revision)
    assert later.changes == ()
    assert (await store.at(DUE).expire_due(10)).value == 0


async def test_adks_tables_have_nothing_before_the_users_message_and_all_after_it(store, stock):
    revision = await create_for_user(store)
    revision = (await append(store, T0, words(), revision)).value.revision
    assert await stock.rows("SELECT * FROM sessions") == []
    assert await stock.rows("SELECT * FROM events") == []
    await append(store, T0 + TICK, message(at=T0 + TICK), revision)
    stored = await stock.rows("SELECT id FROM events ORDER BY timestamp, id")
    assert [row["id"] for row in stored] == ["w1", "m1"]


@pytest.mark.parametrize("kind", [words, step])
async def test_an_event_of_the_agent_gives_a_fresh_ttl(store, kind):
    """Seen to fail with `hold_event` for the agent's changes of state."""
    revision = await create_for_user(store)
    await append(store, FEW_MINUTES, kind(at=FEW_MINUTES), revision)
    record = await store.at(FEW_MINUTES).lifecycle(key())
    assert record.expires_at == FEW_MINUTES + TTL
    assert (await store.at(DUE).expire_due(10)).value == 0
    assert (await store.at(FEW_MINUTES + TTL).expire_due(10)).value == 1


async def test_an_event_of_the_agent_brings_no_deadline_nearer(store):
    revision = await create_for_user(store)
    await store.at(T0).hold_off([key()], held_for=HOUR)
    await append(store, T0, words(), revision)
    assert (await store.at(T0).lifecycle(key())).expires_at == T0 + HOUR


async def test_a_change_of_state_by_the_user_moves_no_deadline(store):
    revision = await create_for_user(store)
    await append(store, FEW_MINUTES, note(at=FEW_MINUTES), revision)
    record = await store.at(FEW_MINUTES).lifecycle(key())
    assert (record.expires_at, record.agent_spoke) == (DUE, False)


@pytest.mark.parametrize("swept", [False, True], ids=["due", "swept"])
@pytest.mark.parametrize("kind", [words, step])
async def test_an_event_of_the_agent_lets_an_expired_session_wait_again(store, kind, swept):
    """Seen to fail with `hold_words` for waiting sessions only."""
    revision = await create_for_user(store, state={"a": 1})
    if swept:
        await store.at(DUE).expire_due(10)
    appended = await append(store, DUE + TTL, kind(at=DUE), revision)
    (change,) = appended.changes
    assert (change.kind, change.cause, change.at) == (
        ChangeKind.RESURRECTED,
        Cause.RUN,
        DUE + TTL,
    )
    record = await store.at(DUE + TTL).lifecycle(key())
    assert change.record == record
    assert (record.status, record.resurrections) == (Status.WAITING, 1)
    assert (record.expires_at, record.expired_at) == (DUE + 2 * TTL, None)
    assert (await store.at(DUE + TTL).read(key())).state["a"] == 1


async def test_an_expired_session_that_anyone_uses_is_brought_back_by_no_change_of_state(store):
    revision = await create(store)
    with pytest.raises(NoSuchSessionError):
        await append(store, DUE, step(at=DUE), revision)


async def test_a_change_of_state_by_the_user_brings_no_session_back(store):
    revision = await create_for_user(store)
    with pytest.raises(NoSuchSessionError):
        await append(store, DUE, note(at=DUE), revision)


async def test_no_event_of_the_agent_brings_back_what_is_not_restorable(open_store):
    store = await open_store(horizon=timedelta(0))
    revision = await create_for_user(store)
    with pytest.raises(NoSuchSessionError):
        await append(store, DUE, words(at=DUE), revision)


async def test_a_message_of_the_user_resurrects_with_what_the_agent_said(store):
    revision = await create_for_user(store)
    revision = (await append(store, T0, words(), revision)).value.revision
    await store.at(DUE).expire_due(10)
    used = await append(store, DUE + TTL, message(at=DUE + TTL), revision)
    assert [change.kind for change in used.changes] == [ChangeKind.RESURRECTED, ChangeKind.USED]
    found = await store.at(DUE + TTL).read(key())
    assert [event.id for event in found.events] == ["w1", "m1"]


async def test_words_beyond_the_bound_of_events_count_as_use(store):
    """Seen to fail with words that are refused beyond the bound."""
    revision = await create_for_user(store)
    for number in range(HELD_EVENTS):
        event = words(f"w{number:03}", at=T0 + number * TICK)
        appended = await append(store, T0, event, revision)
        assert appended.changes == ()
        revision = appended.value.revision
    last = await append(store, T0, words("w999", at=T0 + TTL), revision)
    assert [change.kind for change in last.changes] == [ChangeKind.USED]
    assert len((await store.at(T0).read(key())).events) == HELD_EVENTS + 1


@pytest.mark.parametrize("kind", [words, step])
@pytest.mark.parametrize("now", [T0, DUE], ids=["waiting", "expired"])
async def test_an_event_of_the_agent_beyond_the_bound_of_bytes_counts_as_use(store, kind, now):
    revision = await create_for_user(store)
    event = kind(at=now, state={"big": "x" * HELD_BYTES})
    appended = await append(store, now, event, revision)
    kinds = [ChangeKind.RESURRECTED] * (now == DUE) + [ChangeKind.USED]
    assert [change.kind for change in appended.changes] == kinds
    assert (await store.at(now).lifecycle(key())).status is Status.USED


async def test_words_on_an_older_session_are_refused_and_leave_nothing_behind(store):
    revision = await create_for_user(store)
    await append(store, T0, note(), revision)
    before = await store.at(T0).read(key())
    with pytest.raises(OutdatedSessionError):
        await append(store, T0, words(state={"app:leaked": 1}), revision)
    assert await store.at(T0).read(key()) == before
    with pytest.raises(OutdatedSessionError):
        await append(store, DUE, words(state={"app:leaked": 1}), revision)
    assert (await store.at(DUE).lifecycle(key())).status is Status.EXPIRED


async def test_words_that_are_sent_again_are_held_once(store):
    revision = await create_for_user(store)
    first = await append(store, T0, words(), revision)
    again = await append(store, T0, words(), revision)
    assert (again.value.repeated, again.value.revision) == (True, first.value.revision)
    assert len((await store.at(T0).read(key())).events) == 1
    with pytest.raises(InvalidValueError):
        await append(store, T0, words(text="other"), first.value.revision)


async def test_what_is_switched_off_hides_nothing_that_the_agent_said(open_store):
    store = await open_store(enforced=False)
    revision = await create_for_user(store)
    appended = await append(store, DUE, words(at=DUE), revision)
    assert appended.changes == ()
    assert (await store.at(DUE).lifecycle(key())).status is Status.WAITING


async def hold_off(store, at, *keys):
    return await store.at(at).hold_off(keys, held_for=HELD_FOR)


async def test_a_hold_moves_a_near_deadline_ahead_and_no_other(store):
    await create_for_user(store)
    assert await hold_off(store, T0, key()) == [key()]
    assert (await store.at(T0).lifecycle(key())).expires_at == DUE
    near = DUE - TICK
    assert await hold_off(store, near, key()) == [key()]
    assert (await store.at(near).lifecycle(key())).expires_at == near + HELD_FOR
    assert (await store.at(DUE).expire_due(10)).value == 0
    assert (await store.at(near + HELD_FOR).expire_due(10)).value == 1


async def test_only_sessions_that_wait_for_the_user_are_held(store):
    await create_for_user(store, "waiting")
    await create(store, "anyone")
    await create_for_user(store, "expired", ttl=TICK)
    revision = await create_for_user(store, "used")
    await store.at(T0).append(key("used"), message(), revision)
    names = ("waiting", "anyone", "expired", "used", "unknown")
    held = await hold_off(store, DUE - TICK, *map(key, names))
    assert held == [key("waiting")]
    assert await ids(store, DUE) == ["used", "waiting"]


async def test_a_hold_of_no_time_returns_what_waits_and_moves_nothing(store):
    await create_for_user(store)
    for at, held in ((DUE - TICK, [key()]), (DUE, [])):
        assert await store.at(at).hold_off([key()], held_for=timedelta(0)) == held
    assert (await store.at(T0).lifecycle(key())).expires_at == DUE


@pytest.mark.parametrize("ttl", [TTL, HELD_FOR / 5], ids=["long", "shorter than a hold"])
async def test_the_end_of_a_run_gives_exactly_a_fresh_ttl(store, ttl):
    """Seen to fail with an end that lets the deadline of a hold stand."""
    await create_for_user(store, ttl=ttl)
    at = T0 + ttl / 2
    await hold_off(store, at, key())
    ended = await store.at(at).restart_ttl(key(), held_for=HELD_FOR)
    record = await store.at(at).lifecycle(key())
    assert record.expires_at == at + ttl
    assert [(change.kind, change.record) for change in ended.changes] == [
        (ChangeKind.EXTENDED, record)
    ]
    assert (await store.at(at + ttl).expire_due(10)).value == 1


async def test_the_end_of_a_run_keeps_a_later_deadline_that_no_hold_has_set(store):
    await create_for_user(store)
    await store.at(T0).hold_off([key()], held_for=HOUR)
    await store.at(T0).restart_ttl(key(), held_for=HELD_FOR)
    assert (await store.at(T0).lifecycle(key())).expires_at == T0 + HOUR


@pytest.mark.parametrize("name", ["anyone", "expired", "used", "unknown"])
async def test_the_end_of_a_run_leaves_every_other_session_alone(store, name):
    await create(store, "anyone")
    await create_for_user(store, "expired", ttl=TICK)
    revision = await create_for_user(store, "used")
    await store.at(T0).append(key("used"), message(), revision)
    before = await store.at(FEW_MINUTES).lifecycle(key(name))
    ended = await store.at(FEW_MINUTES).restart_ttl(key(name), held_for=HOUR)
    assert ended.changes == ()
    assert await store.at(FEW_MINUTES).lifecycle(key(name)) == before
