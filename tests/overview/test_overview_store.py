"""Exact counts and levels for operators, and the brake of the sweepers."""

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest

from backends import (
    DUE,
    HOUR,
    T0,
    TICK,
    TTL,
    create,
    key,
    levels,
    message,
    note,
    step,
    use,
    words,
)
from lapse.adoption.store import Batch, Selection
from lapse.core.clock import utc_now
from lapse.core.errors import LapseError
from lapse.core.lifecycle import Cause, ChangeKind, Status
from lapse.core.messages import UsedBy
from lapse.overview.store import COUNT_INTERVAL, HOURS_KEPT_FOR, INTERVALS_KEPT_FOR, Tally
from lapse.sweep.rules import CONFIRMED, Brake, BrakeReason

DAY = timedelta(hours=24)
EVER = timedelta(days=3650)


def brake_at(since=T0, reason=BrakeReason.SHARE, **facts):
    return Brake(reason, since, since + CONFIRMED, **facts)


async def counted(store, now=T0):
    """Return how many changes of each kind each app saw."""
    found = Counter()
    for one in (await store.at(now).overview(since=EVER)).counts:
        found[one.app_name, one.kind] += one.sessions
    return found


async def check_sums(store, now=T0):
    """Check that all apps together are the sum of the apps, to the bucket.

    Seen to fail on SQLite without each of the triggers that keep the sums.
    """
    apart = await store.at(now).overview(since=EVER)
    together = await store.at(now).overview(since=EVER, by_app=False)
    levels, counts = Counter(), Counter()
    for tally in apart.tallies:
        levels[tally.status] += tally.sessions
    for one in apart.counts:
        counts[one.at, one.kind] += one.sessions
    assert {one.status: one.sessions for one in together.tallies} == levels
    assert {(one.at, one.kind): one.sessions for one in together.counts} == counts


class RandomRequests:
    """Random requests on a few sessions, and the changes that they returned."""

    def __init__(self, store, seed):
        # Now, for deletions of used sessions are counted by the database's own clock.
        self.store, self.chance, self.now = store, random.Random(seed), utc_now()
        self.changes = Counter()
        self.statuses = {}

    async def step(self):
        where = key(self.chance.choice("abc"), app=self.chance.choice(("app", "other")))
        self.now += self.chance.choice((TICK, TTL / 2, TTL, 6 * HOUR))
        act = self.chance.choice(
            (self.create, self.send_message, self.send_message, self.request_change, self.sweep)
        )
        try:
            self.take(await act(where))
        except LapseError:
            return

    def take(self, changes):
        for change in changes:
            if change is not None:
                self.changes[change.record.key.app_name, change.kind] += 1

    async def create(self, where):
        rule = self.chance.choice(tuple(UsedBy))
        made = await self.store.at(self.now).create(
            where, state=note().delta, ttl=TTL, metadata={}, used_by=rule
        )
        return [made.changes[0]]

    async def send_message(self, where):
        found = await self.store.at(self.now).lifecycle(where)
        read = await self.store.at(self.now).read(where)
        if found is None or found.status is Status.USED:
            return []
        if read is None:  # expired: as a run does that finds nobody to talk to
            outcome = await self.store.at(self.now).resurrect(where, cause=Cause.RUN)
            return [outcome.changes[0]]
        say = self.chance.choice((message, note, words, step))
        event = say(f"e{self.now.timestamp()}", at=self.now)
        self.now += self.chance.choice((TICK, TICK, TTL))  # it may have expired by then
        return (await self.store.at(self.now).append(where, event, read.revision)).changes

    async def request_change(self, where):
        match self.chance.randrange(5):
            case 0:
                return (await self.store.at(self.now).extend(where)).changes
            case 1:
                return (await self.store.at(self.now).amend(where, metadata={"a": 1})).changes
            case 2:
                done = await self.store.at(self.now).resurrect(where, cause=Cause.REQUEST)
                return done.changes
            case 3:
                return (await self.store.at(self.now).restart_ttl(where, held_for=TTL)).changes
            case _:
                return (await self.store.at(self.now).delete(where)).changes

    async def sweep(self, _):
        expired = await self.store.at(self.now).expire_due(2)
        return [*expired.changes, *(await self.store.at(self.now).purge_due(2)).changes]


@pytest.mark.parametrize("rules", [{}, {"horizon": timedelta(0)}, {"enforced": False}], ids=str)
async def test_every_change_is_counted_once_and_the_levels_are_exact(open_store, rules):
    """Seen to fail without the count of an extension, and with `was` always 'waiting'."""
    store = await open_store(**rules)
    requests = RandomRequests(store, seed=7)
    for number in range(150):
        await requests.step()
        if number % 30 == 0:
            await store.at(requests.now).fold_counts()
            await check_sums(store, requests.now)
    assert await counted(store, requests.now) == requests.changes
    found = await levels(store)
    await store.recount()
    assert await levels(store) == found
    await check_sums(store, requests.now)


@pytest.mark.parametrize("swept", [True, False], ids=["swept", "not yet swept"])
async def test_a_message_that_resurrects_counts_as_two_changes(store, swept):
    """Seen to fail with either of them left out."""
    revision = await create(store)
    if swept:
        await store.at(DUE).expire_due(1)
    changes = (await store.at(DUE).append(key(), message(at=T0), revision)).changes
    assert [change.kind for change in changes] == [ChangeKind.RESURRECTED, ChangeKind.USED]
    expired = {("app", ChangeKind.EXPIRED): 1} if swept else {}
    counts = {("app", ChangeKind.CREATED): 1, **expired}
    assert await counted(store) == counts | {("app", change.kind): 1 for change in changes}
    assert await levels(store) == {("app", Status.USED): 1}


async def test_adoption_and_its_undo_change_the_levels(store, stock):
    """Seen to fail with the undoing left out."""
    await stock.create_session(app_name="app", user_id="ann", session_id="theirs")
    now = utc_now() + HOUR
    await store.at(now).adopt(Batch("r1", Selection(), TTL, None, 10))
    assert await counted(store, now) == {("app", ChangeKind.ADOPTED): 1}
    assert await levels(store) == {("app", Status.EXPIRED): 1}
    await store.at(now).put_back("r1", after=None, limit=10)
    assert await counted(store, now) == {("app", ChangeKind.ADOPTED): 1}
    assert await levels(store) == {}


async def test_concurrent_folds_lose_no_count_and_count_nothing_twice(two_stores):
    one, other = two_stores
    for number in range(20):
        await create(one, f"before{number}")

    async def come(store, names):
        for name in names:
            await create(store, name, now=T0 + TICK)

    later = T0 + COUNT_INTERVAL
    await asyncio.gather(
        come(one, [f"a{n}" for n in range(20)]),
        come(other, [f"b{n}" for n in range(20)]),
        *(store.at(later).fold_counts() for store in (one, other) for _ in range(5)),
    )
    await one.at(later).fold_counts()
    assert await counted(one, later) == {("app", ChangeKind.CREATED): 60}
    assert await levels(one) == {("app", Status.WAITING): 60}
    await check_sums(one, later)


async def test_old_counts_are_folded_into_hours_and_very_old_ones_deleted(store):
    for number in range(4):
        await create(store, f"s{number}", now=T0 + number * 20 * COUNT_INTERVAL / 2)

    async def moments(now):
        await store.at(now).fold_counts()
        await check_sums(store, now)
        return [
            (one.at - T0, one.sessions) for one in (await store.at(now).overview(since=EVER)).counts
        ]

    fine = [(n * 10 * COUNT_INTERVAL, 1) for n in range(4)]
    assert await moments(T0 + INTERVALS_KEPT_FOR) == fine
    assert await moments(T0 + INTERVALS_KEPT_FOR + 3 * HOUR) == [
        (0 * HOUR, 2),
        (HOUR, 1),
        (2 * HOUR, 1),
    ]
    assert await moments(T0 + HOURS_KEPT_FOR + TICK) == [(HOUR, 1), (2 * HOUR, 1)]
    assert await levels(store) == {("app", Status.WAITING): 4}


async def test_an_overview_shows_one_consistent_moment(store):
    empty = await store.at(T0).overview(since=HOUR)
    assert (empty.now, empty.tallies, empty.counts, empty.brake) == (T0, [], [], None)
    assert (empty.next_expiry, empty.next_purge, empty.swept_at) == (None, None, None)
    await create(store, "soon", ttl=TICK)
    await create(store, "later")
    await store.at(T0 + TICK).expire_due(10)
    await create(store, "long ago", now=T0 - DAY)
    assert await store.at(T0 + TICK).mark_swept() == T0 + TICK
    assert await store.set_brake(brake_at(sessions=3))
    found = await store.at(T0 + TICK).overview(since=HOUR)
    assert found.tallies == [Tally("app", Status.EXPIRED, 1), Tally("app", Status.WAITING, 2)]
    assert {(one.kind, one.at, one.sessions) for one in found.counts} == {
        (ChangeKind.CREATED, T0, 2),
        (ChangeKind.EXPIRED, T0, 1),
    }
    assert (found.next_expiry, found.next_purge) == (T0 - DAY + TTL, T0 + DAY)
    assert (found.swept_at, found.brake) == (T0 + TICK, brake_at(sessions=3))


async def test_a_delete_by_stock_adk_is_counted_once_like_one_by_lapse(store, stock):
    await use(store, "ours")
    await use(store, "theirs")
    await store.at(T0).delete(key("ours"))
    await stock.delete_session(app_name="app", user_id="ann", session_id="theirs")
    assert await levels(store) == {}
    assert (await counted(store))["app", ChangeKind.DELETED] == 2


async def test_due_sessions_are_counted_up_to_a_bound_without_a_change(store):
    for number in range(4):
        await create(store, f"s{number}")
    await store.at(DUE).expire_due(1)
    await use(store, "used")
    late = T0 + DAY + HOUR
    for most, expire in ((10, 3), (2, 2)):
        found = await store.at(late).dues(most=most)
        assert (found.now, found.expire, found.purge, found.stored) == (late, expire, 1, 5)
        assert found.brake is None
    assert (await store.at(DUE - TICK).dues(most=10)).expire == 0


async def test_nothing_is_due_while_clean_up_is_disabled(open_store):
    store = await open_store(enforced=False)
    await create(store)
    found = await store.at(T0 + DAY).dues(most=10)
    assert (found.expire, found.purge, found.stored) == (0, 0, 1)


async def test_a_brake_holds_every_purge_until_it_is_released(two_stores):
    """Seen to fail with the brake left out of the purge's condition."""
    one, other = two_stores
    await create(one, "s1")
    await create(one, "s2", ttl=DAY)
    await one.at(DUE).expire_due(10)
    late = T0 + 2 * DAY
    assert await one.set_brake(brake_at(late, BrakeReason.CLOCK, jump=DAY))
    assert not await other.set_brake(brake_at(late + TICK))
    assert await other.brake() == brake_at(late, BrakeReason.CLOCK, jump=DAY)
    assert (await other.at(late).dues(most=9)).brake == await one.brake()
    assert (await other.at(late).purge_due(10)).value == 0
    assert await other.at(T0).time_to_next() == DAY
    assert (await other.at(late).expire_due(10)).value == 1  # it can be had back
    assert await other.at(late).time_to_next() is None
    assert not await one.release_brake(since=late + TICK)
    assert await one.at(late).release_brake(since=late)
    assert not await other.at(late).release_brake(since=late)
    assert await other.brake() is None
    assert (await other.at(late).purge_due(10)).value == 1


async def test_without_a_horizon_a_brake_holds_expiry_too(open_store):
    store = await open_store(horizon=timedelta(0))
    await create(store)
    assert await store.set_brake(brake_at(DUE))
    assert (await store.at(DUE).expire_due(10)).value == 0
    assert await store.at(DUE).time_to_next() is None
    assert await store.at(DUE).release_brake(since=DUE)
    assert (await store.at(DUE).expire_due(10)).value == 1


async def test_a_released_backlog_is_not_braked_for_its_share_again_within_the_hour(store):
    async def released(at):
        return await store.set_brake(brake_at(at)) and await store.at(at).release_brake(since=at)

    assert await released(T0)
    assert not await store.set_brake(brake_at(T0 + CONFIRMED - TICK))
    assert await store.set_brake(brake_at(T0 + TICK, BrakeReason.CLOCK))  # another matter
    assert await store.at(T0).release_brake(since=T0 + TICK)
    assert await released(T0 + CONFIRMED)
    # A release in the future is that of a clock that has gone back: it confirms nothing.
    assert await released(T0)


async def test_a_recount_sets_the_levels_from_the_records(store, stock):
    await create(store, "s1")
    await use(store, "s2")
    await stock.rows("INSERT INTO lapse_levels VALUES ('app', 'expired', 5), ('gone', 'used', 2)")
    assert len(await levels(store)) == 4
    await check_sums(store)
    await store.recount()
    assert await levels(store) == {("app", Status.WAITING): 1, ("app", Status.USED): 1}
    await check_sums(store)
