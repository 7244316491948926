"""What is observed of sessions, counted once, and the decisions made from it."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, time, timedelta

import pytest

from backends import DUE, T0, TICK, TTL, create, key, message, note, use
from lapse.core.ages import EDGES, bucket_of
from lapse.core.documents import segment_of
from lapse.core.errors import InvalidValueError, NoSuchSessionError
from lapse.core.lifecycle import ChangeKind, Status
from lapse.store.records import Result
from lapse.ttl import Decision, Outcome, Reason, Scope
from lapse.ttl.observed import (
    MOST_PER_USER,
    MOST_SEGMENTS,
    Count,
    cohorts,
    separate_segments,
)

DAY = T0.date()
HORIZON = timedelta(hours=24)
LATER = T0 + timedelta(days=9)
PLAIN = next(f"p{number}" for number in range(999) if not key(f"p{number}").in_control_group)
CONTROL = next(f"a{number}" for number in range(999) if key(f"a{number}").in_control_group)


async def counted(store, since=DAY) -> Counter:
    found = Counter()
    for count in await store.observed(since=since):
        found[count.scope.segment, count.day, count.outcome, count.bucket] += count.sessions
    return found


async def use_at_age(store, name, age, **options):
    revision = await create(store, name, **options)
    at = options.get("now", T0) + age
    await store.at(at).append(key(name) if isinstance(name, str) else name, message(), revision)


async def fold(store, now=LATER, segments=()):
    midnight = datetime.combine(now.date(), time(0), UTC)
    await store.fold_observations(before=midnight, segments=segments, forgotten=now)


@pytest.mark.parametrize("edge", [1, 2, 50, 95])
async def test_a_first_message_is_counted_in_the_bucket_whose_upper_edge_includes_its_age(
    store, edge
):
    await use_at_age(store, PLAIN, EDGES[edge], ttl=timedelta(days=2))
    await use_at_age(store, CONTROL, EDGES[edge] + TICK, ttl=timedelta(days=2))
    assert await counted(store) == {
        ("", DAY, Outcome.USED, edge - 1): 1,
        ("", DAY, Outcome.CONTROL, edge): 1,
    }


async def test_only_the_first_message_counts_and_only_once(store):
    revision = await create(store, PLAIN, metadata={"segment": "new"})
    first = message()
    await store.at(T0).append(key(PLAIN), note(), revision)
    revision = (await store.at(T0).read(key(PLAIN))).revision
    assert not await counted(store)
    appended = await store.at(T0 + TTL / 2).append(key(PLAIN), first, revision)
    assert (await store.at(T0 + TTL).append(key(PLAIN), first, revision)).value.repeated
    await store.at(T0 + TTL).append(key(PLAIN), message("m2"), appended.value.revision)
    await store.at(T0 + TTL).delete(key(PLAIN))
    assert await counted(store) == {("new", DAY, Outcome.USED, bucket_of(TTL / 2)): 1}


async def test_a_message_that_resurrects_is_counted_at_its_age(store):
    revision = await create(store, PLAIN)
    await store.at(DUE).expire_due(10)
    await store.at(T0 + 5 * TTL).append(key(PLAIN), message(), revision)
    assert await counted(store) == {("", DAY, Outcome.USED, bucket_of(5 * TTL)): 1}


async def test_a_session_that_is_created_by_its_first_message_is_not_observed(store):
    await use_at_age(store, PLAIN, TICK, metadata={"kind": "legacy-session"})
    assert not await counted(store)


async def test_a_message_that_is_refused_leaves_no_observation(store):
    revision = await create(store)
    revision = (await store.at(T0).append(key(), note("same"), revision)).value.revision
    with pytest.raises(InvalidValueError):
        await store.at(T0).append(key(), message("same"), revision)
    assert not await counted(store)


async def test_sessions_without_a_message_are_counted_when_they_end(store):
    for name in ("gone", "left", "late"):
        await create(store, name, metadata={"segment": "new"})
    await store.at(T0 + TTL / 2).delete(key("gone"))
    assert await counted(store) == {("new", DAY, Outcome.WITHDRAWN, bucket_of(TTL / 2)): 1}
    await store.at(DUE).expire_due(10)
    await store.at(T0 + HORIZON).purge_due(1)
    await store.at(T0 + HORIZON).purge_due(10)
    found = await counted(store)
    assert sum(n for (_, _, outcome, _), n in found.items() if outcome is Outcome.UNUSED) == 2
    assert found.total() == 3


async def test_only_a_message_to_a_purged_session_is_counted_as_refused_and_once(store):
    revision = await create(store, metadata={"segment": "new"})
    await store.at(DUE).expire_due(10)
    await store.at(T0 + HORIZON).purge_due(10)
    at = T0 + HORIZON + TTL
    with pytest.raises(NoSuchSessionError):
        await store.at(at).append(key(), message(), revision)
    assert await store.at(at).refuse(key())
    assert not await store.at(at).refuse(key())
    assert not await store.at(at).refuse(key("never was"))
    found = await counted(store)
    assert found["new", DAY, Outcome.REFUSED, bucket_of(HORIZON + TTL)] == 1
    assert found.total() == 2


async def test_only_the_first_sessions_of_one_user_and_day_count(store):
    """Seen to fail when the sessions were ranked by their messages instead."""
    names = [f"u{number}" for number in range(MOST_PER_USER + 2)]
    revisions = [
        await create(store, name, now=T0 + number * TICK, ttl=timedelta(days=1))
        for number, name in enumerate(names)
    ]
    # The first created is heard last, and counts all the same.
    for number, name in reversed(list(enumerate(names))):
        at = T0 + timedelta(hours=len(names) - number)
        await store.at(at).append(key(name), message(), revisions[number])
    await use(store, "tomorrow", now=T0 + timedelta(days=1))
    for _ in range(2):
        found = await counted(store)
        ages = {bucket: outcome for (_, day, outcome, bucket) in found if day == DAY}
        surplus = {bucket_of(timedelta(hours=hours)) for hours in (1, 2)}
        assert {bucket for bucket, outcome in ages.items() if outcome is Outcome.SURPLUS} == surplus
        assert found.total() == len(names) + 1
        await fold(store)


async def test_a_recount_from_the_records_gives_the_same_numbers(store):
    """Seen to fail when a resurrecting message went uncounted."""
    chance = random.Random(6)
    keys = [
        key(f"s{number}", user=f"u{chance.randrange(12)}", app=chance.choice("ab"))
        for number in range(60)
    ]
    for number, name in enumerate(keys):
        born = T0 + timedelta(minutes=37 * number)
        metadata = chance.choice([{}, {"segment": "x"}, {"segment": "y" * 33}, {"segment": 7}])
        revision = await create(store, name, now=born, metadata=metadata)
        if chance.random() < 0.6:
            age = timedelta(seconds=chance.lognormvariate(6, 2))
            await store.at(born + age).expire_due(10)
            await store.at(born + min(age, HORIZON / 2)).append(name, message(), revision)
    records = [await store.at(T0).lifecycle(name) for name in keys]
    used = sorted(
        (record for record in records if record.status is Status.USED),
        key=lambda record: record.created_at,
    )
    expected, of_user = Counter(), Counter()
    for record in used:
        user = (record.key.app_name, record.key.user_id, record.created_at.date())
        of_user[user] += 1
        outcome = Outcome.CONTROL if record.key.in_control_group else Outcome.USED
        expected[
            Scope(record.key.app_name, segment_of(record.metadata)),
            record.created_at.date(),
            outcome if of_user[user] <= MOST_PER_USER else Outcome.SURPLUS,
            bucket_of(record.first_message_at - record.created_at),
        ] += 1
    assert {segment for (_, segment), *_ in expected} == {"", "x"}
    for _ in range(2):
        found = {
            (count.scope, count.day, count.outcome, count.bucket): count.sessions
            for count in await store.observed(since=DAY)
        }
        assert found == dict(expected)
        await fold(store, segments=[Scope("a", "x"), Scope("b", "x")])


async def test_concurrent_and_repeated_folds_count_nothing_twice(two_stores):
    """Seen to fail, on SQLite, when the rows that were counted stayed."""
    one, other = two_stores
    for turn in range(5):
        for number in range(10):
            await use(one, f"s{turn}-{number}")
        # Connections first, so that the folds really come together.
        before, *_ = await asyncio.gather(*(counted(store) for store in (one, other) * 4))
        await asyncio.gather(*(fold(store) for store in (one, other) * 4))
        assert await counted(other) == before
    await use(one, "late")
    assert await counted(one) != before
    await fold(other)
    await fold(one)
    assert (await counted(one)).total() == before.total() + 1


async def test_a_fold_keeps_the_current_day_and_merges_segments_over_the_limit(store):
    for number, segment in enumerate(["x", "y", "x"]):
        await use_at_age(store, f"s{number}", TTL / 2, metadata={"segment": segment})
    before = await counted(store)
    await fold(store, now=T0)
    assert await counted(store) == before
    await fold(store, segments=[Scope("app", "x")])
    assert {(segment, n) for (segment, *_), n in (await counted(store)).items()} == {
        ("x", 2),
        ("", 1),
    }


def test_at_most_eight_segments_are_distinguished_the_known_ones_first():
    scopes = [Scope("app", f"s{number}") for number in range(MOST_SEGMENTS + 3)]
    counts = [Count(scope, DAY, Outcome.USED, 3, size) for size, scope in enumerate(scopes, 1)]
    assert separate_segments(counts) == frozenset(scopes[-MOST_SEGMENTS:])
    known = scopes[:2]
    assert separate_segments(counts, known) == frozenset([*known, *scopes[-MOST_SEGMENTS + 2 :]])
    of_app = cohorts(counts, separate_segments(counts))[Scope("app")]
    assert [day.created for day in of_app] == [sum(range(1, len(scopes) + 1))]


async def test_the_newest_first_messages_of_each_segment_are_found(store):
    for number in range(5):
        await use_at_age(
            store,
            key(f"s{number}", user=f"u{number}"),
            number * TTL,
            metadata={"segment": "x" if number % 2 else ""},
        )
    now = T0 + 5 * TTL
    found = await store.at(now).recent_first_messages(newest=2, max_age=4 * TTL)
    assert {(first.scope.segment, first.age, first.at) for first in found} == {
        ("", 2 * TTL, T0 + 2 * TTL),
        ("", 4 * TTL, T0 + 4 * TTL),
        ("x", 3 * TTL, T0 + 3 * TTL),
    }


async def test_one_of_two_concurrent_rounds_counts(two_stores):
    """Seen to fail without the version in the condition."""
    one, other = two_stores
    start = await one.at(T0).ttl_round()
    assert (start.now, start.slot, start.version) == (T0, None, 0)
    for slot in (7, 8):
        version = (await other.ttl_round()).version
        made = await asyncio.gather(
            *(
                store.record_decisions(
                    [Decision(Scope("app"), T0, Reason.CHOSEN, ttl=number * TTL)],
                    slot=slot,
                    version=version,
                )
                for number, store in enumerate((one, other) * 3, 1)
            )
        )
        assert sum(made) == 1
        assert (await one.ttl_round()).slot == slot
    assert len(await one.ttl_decisions(newest=9)) == 2
    (newest,) = await other.ttl_decisions()
    assert (newest.scope, newest.reason) == (Scope("app"), Reason.CHOSEN)


async def test_a_longer_ttl_lengthens_sessions_with_the_one_before_and_shortens_none(store):
    await create(store, "waits", metadata={"segment": "x"})
    await create(store, "other", metadata={"segment": "y"})
    await create(store, "own", ttl=2 * TTL, metadata={"segment": "x"})
    await create(store, "extended", metadata={"segment": "x"})
    await store.at(T0 + TTL * 0.9).extend(key("extended"))
    await use(store, "used")

    async def lengthen(segment, ttl):
        return await store.at(T0 + TTL / 2).lengthen_waiting(
            Scope("app", segment), before=TTL, ttl=ttl, limit=10
        )

    nobody = Result(0)
    assert await lengthen("x", TTL / 3) == nobody
    lengthened = await lengthen("x", 1.5 * TTL)
    assert lengthened.value == 1
    assert [(change.kind, change.record.key.session_id) for change in lengthened.changes] == [
        (ChangeKind.EXTENDED, "waits")
    ]
    assert await lengthen("x", 1.5 * TTL) == nobody
    assert (await lengthen("", 1.5 * TTL)).value == 1
    deadlines = {
        name: (await store.at(T0).lifecycle(key(name))).expires_at
        for name in ("waits", "other", "own", "extended", "used")
    }
    assert deadlines == {
        "waits": T0 + 1.5 * TTL,
        "other": T0 + 1.5 * TTL,
        "own": T0 + 2 * TTL,
        "extended": T0 + 1.9 * TTL,
        "used": None,
    }
