"""Concurrent operations on archived sessions, on two replicas of one store.

Every race runs many times in a shuffled order. `RACES` sessions in all are raced in the long test.
"""

import os
from collections import Counter
from datetime import timedelta

import pytest
from archiving import DAY, LATER, archive

from backends import HOUR, NO_STATE, T0, TTL, key, levels, message, use
from lapse.core.errors import NoSuchSessionError, OutdatedSessionError, SessionExistsError
from lapse.core.lifecycle import Cause, ChangeKind, Status
from races import ANYTHING, at_once, fail_on_others, succeeded

NAMES = [f"s{number:02}" for number in range(12)]
ROUNDS = 8
PURGE = LATER + 100 * DAY
RACES = int(os.environ.get("LAPSE_TEST_RACES", "6000"))


async def used(store, number):
    """Return the keys of fresh used sessions for one round."""
    names = [f"{number}-{name}" for name in NAMES]
    for name in names:
        await use(store, name)
    return [key(name) for name in names]


async def message_and_archive(stores, number, keys, *, before=timedelta(0)):
    """Race messages with archives; fail unless every message is stored and its session lives."""
    said = [
        stores[position % 2].at(LATER - before).append(one, message("m2", at=LATER), ANYTHING)
        for position, one in enumerate(keys)
    ]
    taken = [
        archive(store, *keys[start : start + 4])
        for start in range(0, len(keys), 4)
        for store in stores
    ]
    results = await at_once(number, *said, *taken)
    fail_on_others(results)
    restored = Counter()
    for one, appended in zip(keys, results, strict=False):
        restored[one] = [change.kind for change in appended.changes].count(ChangeKind.RESTORED)
        found = await stores[0].at(PURGE).read(one)
        assert [event.id for event in found.events] == ["m1", "m2"]
        assert (await stores[1].at(PURGE).lifecycle(one)).status is Status.USED
    archived = Counter(change.record.key for one in results[len(keys) :] for change in one.changes)
    assert set(archived.values()) <= {1}
    assert {one for one in keys if restored[one]} == set(archived)
    return len(archived)


async def test_a_message_wins_over_the_archive_always(two_stores):
    """Before it the session is simply used, after it the message restores it.

    Seen to fail with an archive that locks no rows, and with an append that does not look into the
    archive.
    """
    for number in range(ROUNDS):
        await message_and_archive(two_stores, number, await used(two_stores[0], number))


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_no_message_is_lost_in_very_many_races(two_stores):
    """Promise 1: nothing with an acknowledged message is lost or hidden by an archive."""
    archived = 0
    for number in range(RACES // len(NAMES)):
        keys = await used(two_stores[0], number)
        archived += await message_and_archive(two_stores, number, keys)
        for one in keys:
            await two_stores[0].delete(one)
    assert archived


async def test_a_message_wins_over_the_purge_or_comes_too_late_as_a_whole(two_stores):
    for number in range(ROUNDS):
        keys = await used(two_stores[0], number)
        await archive(two_stores[0], *keys)
        said = [
            two_stores[position % 2].at(PURGE).append(one, message("m2", at=PURGE), ANYTHING)
            for position, one in enumerate(keys)
        ]
        results = await at_once(
            number, *said, *(store.at(PURGE).purge_archived(5) for store in two_stores * 3)
        )
        fail_on_others(results, NoSuchSessionError)
        purged = {change.record.key for one in results[len(keys) :] for change in one.changes}
        for one, appended in zip(keys, results, strict=False):
            found = await two_stores[0].at(PURGE).read(one)
            if one in purged:
                assert isinstance(appended, NoSuchSessionError)
                assert found is None
            else:
                assert [event.id for event in found.events] == ["m1", "m2"]


async def test_one_of_many_restores_brings_a_session_back(two_stores):
    for number in range(ROUNDS):
        keys = await used(two_stores[0], number)
        await archive(two_stores[0], *keys)
        calls = [
            store.at(PURGE).resurrect(one, cause=Cause.REQUEST)
            for one in keys
            for store in two_stores
        ]
        purges = [store.at(PURGE).purge_archived(5) for store in two_stores * 3]
        results = await at_once(number, *calls, *purges)
        fail_on_others(results, NoSuchSessionError)
        purged = {change.record.key for one in results[len(calls) :] for change in one.changes}
        back = Counter(
            change.record.key for one in succeeded(results[: len(calls)]) for change in one.changes
        )
        assert not purged & set(back)
        assert purged | set(back) == set(keys)
        assert set(back.values()) <= {1}
        for one in back:
            assert [event.id for event in (await two_stores[0].at(PURGE).read(one)).events] == [
                "m1"
            ]
    assert sum((await levels(two_stores[0])).values()) <= ROUNDS * len(NAMES)


async def test_a_delete_and_an_archive_leave_nothing_behind(two_stores):
    """Seen to fail with a delete that leaves the archive's row."""
    for number in range(ROUNDS):
        keys = await used(two_stores[0], number)
        deletes = [two_stores[position % 2].delete(one) for position, one in enumerate(keys)]
        archives = [archive(store, *keys[:6]) for store in two_stores]
        archives += [archive(store, *keys[6:]) for store in two_stores]
        fail_on_others(await at_once(number, *deletes, *archives))
        for one in keys:
            assert await two_stores[1].at(LATER).lifecycle(one) is None
            assert await two_stores[1].at(LATER).read(one) is None
            created = (
                await two_stores[0].at(LATER).create(one, state=NO_STATE, ttl=TTL, metadata={})
            )
            seen = created.value.revision
            await two_stores[0].at(LATER).append(one, message("m1", at=LATER), seen)
        assert (await archive(two_stores[0], *keys, now=LATER + 30 * DAY)).value.archived == 12


async def test_a_create_never_replaces_what_is_archived_at_the_same_time(two_stores):
    for number in range(ROUNDS):
        keys = await used(two_stores[0], number)
        creates = [
            store.at(LATER).create(one, state=NO_STATE, ttl=TTL, metadata={})
            for one in keys
            for store in two_stores
        ]
        results = await at_once(number, *creates, *(archive(store, *keys) for store in two_stores))
        fail_on_others(results, SessionExistsError)
        assert not succeeded(results[: len(creates)])


async def test_two_messages_to_an_archived_session_are_stored_one_after_the_other(two_stores):
    for number in range(ROUNDS):
        keys = await used(two_stores[0], number)
        seen = {one: (await two_stores[0].read(one)).revision for one in keys}
        await archive(two_stores[0], *keys)
        calls = [
            store.at(LATER).append(one, message(f"m{2 + place}", at=LATER), seen[one])
            for one in keys
            for place, store in enumerate(two_stores)
        ]
        results = await at_once(number, *calls)
        fail_on_others(results, OutdatedSessionError)
        for position in range(len(keys)):
            assert len(succeeded(results[2 * position : 2 * position + 2])) == 1


async def test_stock_adk_writes_before_the_archive_or_not_at_all(store, stock):
    """Seen to fail on PostgreSQL with an archive that locks no rows."""
    from google.adk.events.event import Event
    from google.genai.types import Content, Part

    content = Content(role="user", parts=[Part(text="hello")])
    late = LATER + HOUR
    for number in range(ROUNDS):
        keys = await used(store, number)
        sessions = [
            await stock.get_session(app_name="app", user_id="ann", session_id=one.session_id)
            for one in keys
        ]
        events = [Event(author="user", content=content, timestamp=T0.timestamp() + 9) for _ in keys]
        said = [
            stock.append_event(session, event)
            for session, event in zip(sessions, events, strict=True)
        ]
        taken = [archive(store, one, now=late) for one in keys]
        results = await at_once(number, *said, *taken)
        for one, appended, event in zip(keys, results, events, strict=False):
            await store.at(late).resurrect(one, cause=Cause.REQUEST)
            stored = {found.id for found in (await store.read(one)).events}
            if not isinstance(appended, BaseException):
                assert event.id in stored, "an acknowledged message of stock ADK is lost"
            else:
                assert event.id not in stored
