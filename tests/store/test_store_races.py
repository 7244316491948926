"""Concurrent operations on two replicas of one store.

Every race runs many times in a shuffled order, and each outcome that the design allows is
accepted, but nothing between them.
"""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from backends import DUE, NO_STATE, T0, TICK, TTL, create, ids, key, message, note
from lapse.core.errors import (
    NoSuchSessionError,
    OutdatedSessionError,
    SessionExistsError,
    WrongStatusError,
)
from lapse.core.lifecycle import Cause, ChangeKind, Status
from lapse.store.records import Revision
from races import ANYTHING, FRESH, GONE, ROUNDS, at_once, fail_on_others, prepare, succeeded, sweep


@pytest.mark.parametrize("before", [TICK, 0 * TICK], ids=["just before", "at"])
async def test_a_message_at_the_deadline_survives_every_sweep(two_stores, before):
    """The message wins, always.

    Seen to fail with a sweep that reads what is due and then saves it without repeating the
    condition: it expires sessions that have just been marked as used.
    """
    for number in range(ROUNDS):
        names = await prepare(two_stores[0], number)
        messages = [
            two_stores[position % 2].at(DUE - before).append(key(name), message(), FRESH)
            for position, name in enumerate(names)
        ]
        results = await at_once(number, *messages, *(sweep(store) for store in two_stores * 2))
        fail_on_others(results)
        appended, swept = results[: len(names)], results[len(names) :]
        expired = Counter(name for one in swept for name in one)
        for name, one in zip(names, appended, strict=True):
            revived = before == timedelta(0) or expired[name]
            kinds = [ChangeKind.RESURRECTED] * bool(revived) + [ChangeKind.USED]
            assert [change.kind for change in one.changes] == kinds
            found = await two_stores[0].at(GONE).read(key(name))
            assert [event.id for event in found.events] == ["m1"]
            assert (await two_stores[1].at(GONE).lifecycle(key(name))).status is Status.USED
        assert set(expired.values()) <= {1}
        assert (await two_stores[0].at(GONE + TTL).purge_due(99)).value == 0


async def test_a_message_survives_a_concurrent_expiry_by_hand(two_stores):
    """The message wins, before the expiry or after it.

    Seen to fail with an `expire` that reads the status first and does not repeat the condition.
    """
    for number in range(ROUNDS):
        names = await prepare(two_stores[0], number)
        calls = []
        for position, name in enumerate(names):
            calls += [
                two_stores[position % 2].at(T0).append(key(name), message(), FRESH),
                two_stores[1 - position % 2].at(T0).expire(key(name)),
                two_stores[position % 2].at(T0).expire(key(name), by="op"),
            ]
        results = await at_once(number, *calls)
        fail_on_others(results, WrongStatusError)
        acts = Counter(act.session for act in await two_stores[0].acts(newest=99))
        for position, name in enumerate(names):
            appended, *asked = results[3 * position : 3 * position + 3]
            kinds = [change.kind for change in appended.changes]
            expiries = [one.changes for one in succeeded(asked) if one.changes]
            assert kinds == [ChangeKind.RESURRECTED] * len(expiries) + [ChangeKind.USED]
            assert len(expiries) <= 1
            assert acts[name] == bool(succeeded(asked[1:]) and asked[1].changes)
            assert (await two_stores[1].at(T0).lifecycle(key(name))).status is Status.USED


async def test_each_expiry_is_returned_by_exactly_one_of_many_sweeps(two_stores):
    for number in range(ROUNDS):
        names = await prepare(two_stores[0], number)
        swept = await at_once(number, *(sweep(store) for store in two_stores * 3))
        fail_on_others(swept)
        assert Counter(name for one in swept for name in one) == Counter(names)


async def test_each_purge_is_returned_by_exactly_one_of_many_sweeps(two_stores):
    names = await prepare(two_stores[0], 0)
    await sweep(two_stores[0])
    swept = await at_once(1, *(store.at(GONE).purge_due(4) for store in two_stores * 4))
    fail_on_others(swept)
    purged = [change.record.key.session_id for one in swept for change in one.changes]
    assert Counter(purged) == Counter(names)


async def test_one_of_two_concurrent_messages_is_the_first_and_both_are_stored(two_stores):
    for number in range(ROUNDS):
        where = key(f"s{number}")
        await create(two_stores[0], where)
        calls = (
            store.at(T0).append(where, message(f"m{position}", at=T0 + position * TICK), ANYTHING)
            for position, store in enumerate(two_stores * 2)
        )
        results = await at_once(number, *calls)
        fail_on_others(results)
        changes = [change.kind for one in results for change in one.changes]
        assert changes == [ChangeKind.USED]
        found = await two_stores[0].at(T0).read(where)
        assert [event.id for event in found.events] == ["m0", "m1", "m2", "m3"]
        assert found.revision.number == 4


async def test_one_of_two_writers_with_the_same_revision_is_stale(two_stores):
    for number in range(ROUNDS):
        where = key(f"s{number}")
        revision = await create(two_stores[0], where)
        for turn in range(3):
            calls = (
                store.at(T0).append(where, message(f"m{turn}-{position}"), revision)
                for position, store in enumerate(two_stores)
            )
            results = await at_once(number + turn, *calls)
            fail_on_others(results, OutdatedSessionError)
            (winner,) = succeeded(results)
            revision = winner.value.revision
        assert len((await two_stores[0].at(T0).read(where)).events) == 3


async def test_an_event_sent_many_times_at_once_is_stored_once(two_stores):
    for kind in (note, message):
        for number in range(ROUNDS):
            where = key(f"{kind.__name__}{number}")
            revision = await create(two_stores[0], where)
            calls = (store.at(T0).append(where, kind("e"), revision) for store in two_stores * 2)
            results = await at_once(number, *calls)
            fail_on_others(results)
            assert sorted(one.value.repeated for one in results) == [False, True, True, True]
            assert len((await two_stores[0].at(T0).read(where)).events) == 1


async def test_a_held_event_is_never_lost_to_the_first_message(two_stores):
    for number in range(ROUNDS):
        where = key(f"s{number}")
        await create(two_stores[0], where)
        results = await at_once(
            number,
            two_stores[0].at(T0).append(where, note("a", at=T0), ANYTHING),
            two_stores[1].at(T0).append(where, message("b", at=T0 + TICK), ANYTHING),
        )
        fail_on_others(results)
        found = await two_stores[0].at(T0).read(where)
        assert [event.id for event in found.events] == ["a", "b"]
        assert found.state == {"noted": "a"}


@pytest.mark.parametrize("now", [T0, DUE], ids=["waiting", "expired"])
async def test_a_concurrent_message_and_delete_take_effect_one_after_the_other(two_stores, now):
    for number in range(ROUNDS):
        where = key(f"s{number}")
        revision = await create(two_stores[0], where)
        said, deleted = results = await at_once(
            number,
            two_stores[0].at(now).append(where, message(), revision),
            two_stores[1].at(now).delete(where),
        )
        fail_on_others(results, NoSuchSessionError)
        heard = not isinstance(said, NoSuchSessionError)
        assert (deleted.changes[0].record.status is Status.USED) == heard
        assert await two_stores[0].at(now).lifecycle(where) is None
        revision = await create(two_stores[0], where)
        await two_stores[0].at(T0).append(where, message("new"), revision)
        found = await two_stores[0].at(T0).read(where)
        assert [event.id for event in found.events] == ["new"]


async def test_one_of_many_concurrent_creates_of_one_key_succeeds(two_stores):
    for number in range(ROUNDS):
        where = key(f"s{number}")
        calls = (
            create(store, where, state={"by": position}, metadata={"by": position})
            for position, store in enumerate(two_stores * 2)
        )
        results = await at_once(number, *calls)
        fail_on_others(results, SessionExistsError)
        assert len(succeeded(results)) == 1
        winner = next(position for position, one in enumerate(results) if isinstance(one, Revision))
        assert (await two_stores[0].at(T0).read(where)).state == {"by": winner}
        assert (await two_stores[1].at(T0).lifecycle(where)).metadata == {"by": winner}


@pytest.mark.parametrize("swept", [True, False], ids=["swept", "unswept"])
async def test_a_create_replaces_a_tombstone_whatever_else_happens_to_it(two_stores, swept):
    for number in range(ROUNDS):
        where = key(f"s{number}")
        await create(two_stores[0], where, state={"old": True})
        if swept:
            await two_stores[0].at(DUE).expire_due(99)
        results = await at_once(
            number,
            create(two_stores[0], where, now=GONE),
            create(two_stores[1], where, now=GONE),
            two_stores[0].at(GONE).expire_due(99),
            two_stores[1].at(GONE + timedelta(hours=9)).purge_due(99),
        )
        fail_on_others(results, SessionExistsError)
        assert len(succeeded(results[:2])) == 1
        record = await two_stores[0].at(GONE).lifecycle(where)
        assert (record.status, record.created_at) == (Status.WAITING, GONE)
        assert (await two_stores[1].at(GONE).read(where)).state == {}


async def test_a_message_and_a_create_on_one_tombstone_never_both_win(two_stores):
    for number in range(ROUNDS):
        where = key(f"s{number}")
        revision = await create(two_stores[0], where)
        await two_stores[0].at(DUE).expire_due(99)
        said, made = results = await at_once(
            number,
            two_stores[0].at(DUE).append(where, message(), revision),
            create(two_stores[1], where, now=DUE),
        )
        fail_on_others(results, OutdatedSessionError, SessionExistsError)
        assert len(succeeded(results)) == 1
        record = await two_stores[0].at(DUE).lifecycle(where)
        if isinstance(made, SessionExistsError):
            assert (record.status, record.created_at) == (Status.USED, T0)
        else:
            assert isinstance(said, OutdatedSessionError)
            assert (record.status, record.created_at) == (Status.WAITING, DUE)


async def test_a_session_is_either_resurrected_or_purged(two_stores):
    for number in range(ROUNDS):
        names = await prepare(two_stores[0], number)
        await sweep(two_stores[0])
        asks = (
            two_stores[0].at(GONE - TICK).resurrect(key(name), cause=Cause.REQUEST)
            for name in names
        )
        *revived, one, other = results = await at_once(
            number, *asks, *(store.at(GONE).purge_due(99) for store in two_stores)
        )
        fail_on_others(results, NoSuchSessionError)
        purged = Counter(change.record.key.session_id for change in (*one.changes, *other.changes))
        for name, outcome in zip(names, revived, strict=True):
            back = not isinstance(outcome, NoSuchSessionError)
            assert purged[name] + back == 1
            assert (name in await ids(two_stores[1], GONE)) == back
            await two_stores[0].at(GONE).delete(key(name))


async def test_concurrent_resurrections_count_as_one(two_stores):
    for number in range(ROUNDS):
        where = key(f"s{number}")
        await create(two_stores[0], where)
        asks = (store.at(DUE).resurrect(where, cause=Cause.REQUEST) for store in two_stores * 2)
        outcomes = await at_once(number, *asks)
        fail_on_others(outcomes)
        assert sum(len(outcome.changes) for outcome in outcomes) == 1
        assert {outcome.value.resurrections for outcome in outcomes} == {1}


async def test_a_session_is_either_extended_or_expired_at_its_deadline(two_stores):
    for number in range(ROUNDS):
        names = await prepare(two_stores[0], number)
        asks = (two_stores[0].at(DUE - TICK).extend(key(name)) for name in names)
        results = await at_once(number, *asks, *(sweep(store) for store in two_stores))
        fail_on_others(results, WrongStatusError)
        expired = {name for one in results[-2:] for name in one}
        for name, outcome in zip(names, results, strict=False):
            assert (name in expired) == isinstance(outcome, WrongStatusError)
            await two_stores[0].at(DUE).delete(key(name))


async def test_no_concurrent_change_of_app_state_user_state_or_metadata_is_lost(two_stores):
    await create(two_stores[0], "s1")
    calls = []
    for position in range(24):
        await create(two_stores[0], f"n{position}")
        delta = {f"user:k{position}": position, f"app:k{position}": position}
        event = note(state=delta)
        calls += [
            two_stores[position % 2].at(T0).append(key(f"n{position}"), event, FRESH),
            two_stores[position % 2].at(T0).amend(key("s1"), metadata={f"k{position}": position}),
        ]
    fail_on_others(await at_once(0, *calls))
    expected = {f"k{position}": position for position in range(24)}
    assert await two_stores[1].user_state("app", "ann") == expected
    assert (await two_stores[0].at(T0).lifecycle(key("s1"))).metadata == expected
    state = (await two_stores[1].at(T0).read(key("s1"))).state
    assert {name.removeprefix("app:") for name in state if name.startswith("app:")} == set(expected)


async def test_a_cancelled_caller_leaves_a_whole_transition_or_none(two_stores):
    for number in range(ROUNDS):
        where = key(f"s{number}")
        task = asyncio.create_task(
            two_stores[0].at(T0).create(where, state=NO_STATE, ttl=TTL, metadata={})
        )
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await two_stores[0].ping()
        record = await two_stores[0].at(T0).lifecycle(where)
        assert record is None or record.expires_at == DUE
