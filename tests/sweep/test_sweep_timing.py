"""When the sweeper sweeps, and what it reports."""

import asyncio
import math
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from backends import NO_STATE, create, key, use
from lapse.core.lifecycle import ChangeKind
from lapse.sweep.sweeper import BATCH, Sweeper, sweep_once
from parts import Intercepted

NEVER = timedelta(hours=1)
BOUND = 30.0
SOON = timedelta(milliseconds=40)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def store_url():
    """Stores in memory: when the sweeper sweeps does not depend on the kind of store."""
    return "sqlite:///:memory:"


async def waiting(store, name="s1", ttl=SOON):
    return await store.create(key(name), state=NO_STATE, ttl=ttl, metadata={})


async def asleep(sweeper):
    """Return once the sweeper sleeps."""
    async with asyncio.timeout(BOUND):
        while sweeper._work._run.wakes_at == math.inf:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)


def expired(seen):
    return [one.record.key.session_id for one in seen if one.kind is ChangeKind.EXPIRED]


@pytest.fixture
async def sweeper(store, feed, observed):
    """A sweeper that only a deadline wakes."""
    sweeper = Sweeper(
        store, feed, on_report=observed.reports, on_fault=observed.faults, longest_sleep=NEVER
    )
    yield sweeper
    await sweeper.stop()
    assert observed.faults.seen == []


async def test_a_session_expires_at_its_deadline_and_not_before(store, sweeper, observed):
    created = await waiting(store)
    await sweeper.start()
    await observed.changes.until(expired)
    (change,) = observed.changes.seen
    assert change.at >= created.changes[0].record.expires_at
    assert change.lateness == change.at - created.changes[0].record.expires_at


async def test_the_sweeper_wakes_early_for_a_nearer_deadline(store, sweeper, feed, observed):
    await waiting(store, "far", NEVER)
    await sweeper.start()
    await asleep(sweeper)
    feed.publish((await waiting(store, "near")).changes)
    await observed.changes.until(expired)
    assert expired(observed.changes.seen) == ["near"]


async def test_a_deadline_that_was_brought_nearer_wakes_the_sweeper(store, sweeper, feed, observed):
    await waiting(store, ttl=NEVER)
    await sweeper.start()
    await asleep(sweeper)
    feed.publish([(await store.amend(key(), ttl=SOON)).changes[0]])
    await observed.changes.until(expired)


async def test_a_deadline_announced_during_a_sweep_is_not_forgotten(store, feed, observed):
    """The sweep under way has read the deadlines before this one was set."""

    class Slow(Intercepted):
        async def around(self, name, do):
            ahead = await do()
            if name == "time_to_next" and not observed.reports.seen[1:]:
                feed.publish((await waiting(store)).changes)
            return ahead

    async with Sweeper(Slow(store), feed, on_report=observed.reports, longest_sleep=NEVER):
        await observed.changes.until(expired)


async def test_a_deadline_that_was_not_announced_is_found_within_the_longest_sleep(
    store, feed, observed
):
    async with Sweeper(store, feed, on_report=observed.reports, longest_sleep=SOON):
        await observed.reports.count(1)
        await waiting(store)
        await observed.changes.until(expired)


async def test_the_first_sweep_takes_what_fell_due_while_no_sweeper_ran(store, sweeper, observed):
    for number in range(5):
        await create(store, f"s{number}", now=LONG_AGO)
    await sweeper.start()
    await observed.reports.count(1)
    assert observed.reports.seen[0].expired == 5


async def test_a_sweep_takes_full_batches_until_nothing_is_due(store, sweeper, observed):
    names = [f"s{number}" for number in range(2 * BATCH + 7)]
    await asyncio.gather(*(create(store, name, now=LONG_AGO) for name in names))
    await sweeper.start()
    await observed.reports.count(3)
    assert [(one.expired, one.full) for one in observed.reports.seen[:3]] == [
        (BATCH, True),
        (BATCH, True),
        (7, False),
    ]
    assert Counter(expired(observed.changes.seen)) == Counter(names)


async def test_two_sweepers_share_the_work_and_each_expiry_happens_once(store, feed, observed):
    names = [f"s{number}" for number in range(3 * BATCH)]
    await asyncio.gather(*(create(store, name, now=LONG_AGO) for name in names))
    async with Sweeper(store, feed), Sweeper(store, feed):
        await observed.changes.count(len(names))
    assert Counter(expired(observed.changes.seen)) == Counter(names)


async def test_a_used_session_is_left_alone(store, sweeper, observed):
    await use(store, now=LONG_AGO)
    await create(store, "empty", now=LONG_AGO)
    await sweeper.start()
    await observed.reports.count(1)
    assert expired(observed.changes.seen) == ["empty"]


async def test_the_sweeper_changes_nothing_while_clean_up_is_disabled(open_store, feed, observed):
    store = await open_store(enforced=False)
    await create(store, now=LONG_AGO)
    async with Sweeper(store, feed, on_report=observed.reports, longest_sleep=SOON):
        await observed.reports.count(3)
    assert observed.changes.seen == []
    assert not any(report.did_something for report in observed.reports.seen)


async def test_a_sweep_reports_what_it_did(store, feed, observed):
    for number in range(3):
        await create(store, f"s{number}", now=LONG_AGO)
    report = await sweep_once(store, feed, batch=2)
    assert (report.expired, report.purged, report.kept, report.full) == (2, 0, 0, True)
    assert report.did_something
    assert report.latest == max(change.lateness for change in observed.changes.seen)
    report = await sweep_once(store, feed, batch=2)
    assert (report.expired, report.full) == (1, False)
    report = await sweep_once(store, feed, batch=2)
    assert not report.did_something
    assert report.latest == timedelta(0)


async def test_without_a_horizon_the_sweeper_expires_and_purges_in_one_sweep(
    open_store, feed, observed
):
    store = await open_store(horizon=timedelta(0))
    await create(store, now=LONG_AGO)
    report = await sweep_once(store, feed)
    assert (report.expired, report.purged) == (1, 1)
    assert [change.kind for change in observed.changes.seen] == [
        ChangeKind.EXPIRED,
        ChangeKind.PURGED,
    ]
