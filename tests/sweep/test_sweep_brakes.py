"""The brakes stop a sweep before it loses too much, on every store and every replica."""

import asyncio
import logging
from datetime import timedelta

import pytest

from backends import HOUR, TTL, Clocked, create, key, use
from lapse.core.clock import utc_now
from lapse.core.errors import StoreUnavailableError
from lapse.core.feed import Feed
from lapse.core.lifecycle import ChangeKind
from lapse.overview.metrics import StoreMetrics
from lapse.sweep.brake import Brakes, confirm
from lapse.sweep.logs import log_sweep
from lapse.sweep.metrics import SweepMetrics
from lapse.sweep.rules import CONFIRMED, BrakeOptions, BrakeReason
from lapse.sweep.store import SweepStore
from lapse.sweep.sweeper import Sweeper, sweep_once
from lapse.telemetry.metrics import Metrics

DAY = timedelta(hours=24)
OPTIONS = BrakeOptions(sessions=3)


class Ahead(Clocked):
    """A store whose clock is `ahead` of what it would be."""

    def __init__(self, store):
        self.ahead = timedelta(0)
        super().__init__(store, lambda: utc_now() + self.ahead)


async def backlog(store, *, due, living):
    """Sessions that are past restoring, and used ones."""
    born = utc_now() - 2 * DAY
    for number in range(due):
        await create(store, f"due{number}", now=born)
    if store.rules.horizon:
        await store.at(born + TTL).expire_due(due)
    for number in range(living):
        await use(store, f"used{number}", now=utc_now())


async def sweeps(store, brakes, number=1, **options):
    """Sweep some times and return the reports."""
    return [await sweep_once(store, Feed(), brakes=brakes, **options) for _ in range(number)]


def purged(reports):
    return sum(report.purged for report in reports)


@pytest.mark.parametrize(("due", "living"), [(3, 0), (5, 5), (4, 40)])
async def test_a_backlog_that_is_small_or_a_small_share_of_all_sessions_is_purged(
    store, due, living
):
    await backlog(store, due=due, living=living)
    (report,) = await sweeps(store, Brakes(OPTIONS))
    assert (report.purged, report.braking.brake) == (due, None)


async def test_a_backlog_over_the_share_is_held_on_every_replica(two_stores):
    """Seen to fail with the brake left out of the purge's condition, and with no look."""
    one, other = two_stores
    await backlog(one, due=6, living=5)
    mine, yours = Brakes(OPTIONS), Brakes(BrakeOptions(share=1))
    (first,) = await sweeps(one, mine)
    assert (first.purged, first.braking.is_new, first.braking.is_ours) == (0, True, True)
    brake = first.braking.brake
    assert (brake.reason, brake.sessions) == (BrakeReason.SHARE, 6)
    assert brake.until - brake.since == CONFIRMED
    (second,) = await sweeps(other, yours)
    assert (second.purged, second.braking.is_new, second.braking.is_ours) == (0, True, False)
    for report in await sweeps(one, mine, 2):
        assert (report.purged, report.braking.brake, report.braking.is_new) == (0, brake, False)

    assert await confirm(other, "ann") == brake
    assert await confirm(other, "ann") is None
    reports = await sweeps(one, mine, 8, batch=1)
    assert purged(reports) == 6
    assert reports[0].braking.let_go == brake
    assert {report.braking.brake for report in reports} == {None}
    assert {report.braking.let_go for report in reports[1:]} == {None}


async def test_one_of_two_concurrent_sweepers_sets_the_brake(two_stores):
    one, other = two_stores
    await backlog(one, due=6, living=0)
    reports = await asyncio.gather(
        *(sweep_once(store, Feed(), brakes=Brakes(OPTIONS)) for store in (one, other) * 3)
    )
    assert purged(reports) == 0
    assert sum(report.braking.is_ours for report in reports) == 1
    assert len({report.braking.brake for report in reports}) == 1


async def test_a_released_brake_is_not_set_again_for_an_hour(store):
    """Seen to fail with a release that does not hold for an hour."""
    clocked, brakes = Ahead(store), Brakes(OPTIONS)
    await backlog(store, due=6, living=0)
    assert purged(await sweeps(clocked, brakes)) == 0
    clocked.ahead = CONFIRMED - timedelta(minutes=1)
    assert purged(await sweeps(clocked, Brakes(OPTIONS))) == 0
    clocked.ahead = CONFIRMED
    reports = await sweeps(clocked, Brakes(OPTIONS), 7, batch=1)
    assert purged(reports) == 6
    assert [report.braking.brake for report in reports] == [None] * 7


async def test_a_backlog_after_that_hour_is_held_again(store):
    clocked, brakes = Ahead(store), Brakes(OPTIONS)
    await backlog(store, due=6, living=0)
    await sweeps(clocked, brakes)
    await confirm(store, "ann")
    assert purged(await sweeps(clocked, brakes)) == 6
    await backlog(store, due=6, living=0)
    clocked.ahead = CONFIRMED + timedelta(minutes=1)
    (report,) = await sweeps(clocked, Brakes(OPTIONS))
    assert (report.purged, report.braking.brake.sessions) == (0, 6)


async def test_a_sweep_after_a_clock_jump_expires_restorable_sessions_and_purges_none(store):
    """Seen to fail without the comparison with the process's own clock."""
    clocked, brakes = Ahead(store), Brakes(BrakeOptions())
    await create(store, "waiting", now=utc_now())
    await create(store, "expired", now=utc_now() - 2 * TTL)
    assert [report.expired for report in await sweeps(clocked, brakes)] == [1]
    clocked.ahead = 2 * DAY
    (report,) = await sweeps(clocked, brakes)
    assert (report.expired, report.purged) == (1, 0)
    brake = report.braking.brake
    assert brake.reason is BrakeReason.CLOCK
    assert timedelta(0) <= 2 * DAY - brake.jump < timedelta(minutes=1)

    clocked.ahead += CONFIRMED
    assert purged(await sweeps(clocked, Brakes())) == 2  # the hour to come back is over, too


async def test_the_brake_is_released_when_the_clock_comes_back(store):
    clocked, brakes = Ahead(store), Brakes()
    await sweeps(clocked, brakes)
    clocked.ahead = 2 * DAY
    (report,) = await sweeps(clocked, brakes)
    assert report.braking.brake is not None
    clocked.ahead = timedelta(minutes=1)
    (back,) = await sweeps(clocked, brakes)
    assert (back.braking.brake, back.braking.let_go) == (None, report.braking.brake)


@pytest.mark.parametrize("ahead", [timedelta(minutes=4), -2 * DAY], ids=str)
async def test_a_clock_a_little_ahead_or_behind_sets_no_brake(store, ahead):
    clocked, brakes = Ahead(store), Brakes()
    await sweeps(clocked, brakes)
    clocked.ahead = ahead
    (report,) = await sweeps(clocked, brakes)
    assert report.braking.brake is None


async def test_a_brake_for_a_clock_jump_replaces_one_for_the_share(store):
    clocked, brakes = Ahead(store), Brakes(OPTIONS)
    await backlog(store, due=6, living=0)
    await sweeps(clocked, brakes)
    clocked.ahead = HOUR / 2
    (report,) = await sweeps(clocked, brakes)
    assert report.braking.brake.reason is BrakeReason.CLOCK
    assert report.braking.let_go.reason is BrakeReason.SHARE


async def test_a_second_clock_jump_does_not_release_the_brake_of_the_first(store):
    """Seen to fail with a brake that another jump cannot replace."""
    clocked, brakes = Ahead(store), Brakes()
    await create(store, "expired", now=utc_now() - 2 * TTL)
    await sweeps(clocked, brakes)
    for clocked.ahead in (2 * DAY, 4 * DAY, 4 * DAY + timedelta(minutes=4)):
        (report,) = await sweeps(clocked, brakes)
        assert (report.purged, report.braking.brake.reason) == (0, BrakeReason.CLOCK)


async def test_a_clock_jump_is_noticed_again_if_setting_the_brake_failed(store, monkeypatch):
    """Seen to fail with the clocks remembered before the brake is set."""
    clocked, brakes = Ahead(store), Brakes()
    await create(store, "expired", now=utc_now() - 2 * TTL)
    await sweeps(clocked, brakes)
    clocked.ahead = 2 * DAY

    async def fail(_):
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(SweepStore, "set_brake", lambda _, brake: fail(brake))
        with pytest.raises(StoreUnavailableError):
            await sweeps(clocked, brakes)
    (report,) = await sweeps(clocked, brakes)
    assert (report.purged, report.braking.brake.reason) == (0, BrakeReason.CLOCK)


async def test_without_a_horizon_the_brake_holds_expiries_as_well(open_store):
    """Seen to fail with expiries left out of what is lost for good."""
    store = await open_store(horizon=timedelta(0))
    await backlog(store, due=6, living=0)
    (report,) = await sweeps(store, Brakes(OPTIONS))
    assert (report.expired, report.purged, report.braking.brake.sessions) == (0, 0, 6)
    await confirm(store, "ann")
    (report,) = await sweeps(store, Brakes(OPTIONS))
    assert (report.expired, report.purged) == (6, 6)


async def test_sweepers_log_a_brake_once_and_go_on_when_it_is_confirmed(two_stores, caplog):
    await backlog(two_stores[0], due=6, living=0)
    metrics = Metrics()
    sweeps_counted, stored = SweepMetrics(metrics), StoreMetrics(two_stores[0], metrics)
    metrics.registry.register(stored)
    metrics.before_scrape(stored.refresh)
    feed, gone, held, free = Feed(), [], asyncio.Event(), asyncio.Event()
    feed.subscribe(lambda change: change.kind is ChangeKind.PURGED and gone.append(change))
    reports = []

    def on_report(report):
        reports.append(report)
        log_sweep(report)
        sweeps_counted.count_sweep(report)
        if sum(one.braking.brake is not None for one in reports) >= 6:
            held.set()
        if len(gone) == 6:
            free.set()

    caplog.set_level(logging.INFO)
    pause = timedelta(milliseconds=20)
    async with (
        asyncio.timeout(30),
        Sweeper(two_stores[0], feed, on_report=on_report, brakes=OPTIONS, longest_sleep=pause),
        Sweeper(two_stores[1], feed, on_report=on_report, brakes=OPTIONS, longest_sleep=pause),
    ):
        await held.wait()
        assert not gone
        text = (await metrics.render()).decode()
        assert 'lapse_brake{reason="share"} 1.0' in text
        assert 'lapse_brake{reason="clock"} 0.0' in text
        assert 'lapse_brakes_total{reason="share"} 1.0' in text
        assert await confirm(two_stores[0], "ann") is not None
        await free.wait()
    assert {change.record.key for change in gone} == {key(f"due{n}") for n in range(6)}
    said = [record.message for record in caplog.records]
    assert said.count("brake set: nothing is purged") == 2  # one line for each process
    assert said.count("brake confirmed") == 1
    assert (await two_stores[0].overview(since=HOUR)).swept_at is not None
