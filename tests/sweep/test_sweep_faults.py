"""Outages of the store, consumers that fail, and starting and stopping."""

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta

import pytest

from backends import NO_STATE, create, key
from lapse.core import background
from lapse.core.errors import StoreUnavailableError
from lapse.core.lifecycle import ChangeKind
from lapse.sweep import sweeper as sweeping
from lapse.sweep.sweeper import Sweeper
from parts import Intercepted

NEVER = timedelta(hours=1)
BRIEF = timedelta(milliseconds=5)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
BOUND = 30.0


@pytest.fixture
def store_url():
    """Stores in memory: what a fault does to the sweeper does not depend on the kind of store."""
    return "sqlite:///:memory:"


class FaultyStore(Intercepted):
    """A store that fails, or waits, in `expire_due` when told to."""

    def __init__(self, store):
        super().__init__(store)
        self.fault = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.inside = self.most_inside = 0

    async def around(self, name, do):
        if name != "expire_due":
            return await do()
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.entered.set()
        try:
            await self.gate.wait()
            if self.fault is not None:
                raise self.fault
            return await do()
        finally:
            self.inside -= 1


@pytest.fixture
async def faulty_store(store):
    return FaultyStore(store)


@pytest.fixture
async def sweeper(faulty_store, feed, observed):
    sweeper = Sweeper(
        faulty_store,
        feed,
        on_report=observed.reports,
        on_fault=observed.faults,
        longest_sleep=BRIEF,
    )
    yield sweeper
    faulty_store.gate.set()
    await sweeper.stop()


def lines(caplog):
    return [
        (record.levelno, record.exc_info is not None)
        for record in caplog.records
        if record.name == background.__name__
    ]


BEGIN, END = (logging.ERROR, False), (logging.WARNING, False)


async def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(
    faulty_store, sweeper, caplog, observed
):
    faulty_store.fault = StoreUnavailableError("the disk is away")
    await sweeper.start()
    await observed.faults.count(4)
    assert lines(caplog) == [BEGIN]
    assert "the disk is away" in caplog.text
    assert sweeper.is_alive
    await create(faulty_store, now=LONG_AGO)
    faulty_store.fault = None
    await observed.changes.count(1)
    await observed.reports.count(3)
    assert lines(caplog) == [BEGIN, END]
    assert [change.kind for change in observed.changes.seen] == [ChangeKind.EXPIRED]


async def test_a_sweeper_that_only_fails_is_not_alive(faulty_store, sweeper, observed, monkeypatch):
    """Seen to fail with a sweeper that counts a failed sweep as one."""
    monkeypatch.setattr(sweeping, "_TIMEOUT", BRIEF)
    faulty_store.fault = StoreUnavailableError("away")
    await sweeper.start()
    async with asyncio.timeout(BOUND):
        while sweeper.is_alive:
            await observed.faults.count(len(observed.faults.seen) + 1)
        faulty_store.fault = None
        while not sweeper.is_alive:
            await observed.reports.count(len(observed.reports.seen) + 1)


async def test_a_second_outage_is_logged_again(faulty_store, sweeper, caplog, observed):
    await sweeper.start()
    for turn in (1, 2):
        faulty_store.fault = StoreUnavailableError("away")
        await observed.faults.count(len(observed.faults.seen) + 3)
        faulty_store.fault = None
        await observed.reports.count(len(observed.reports.seen) + 3)
        assert lines(caplog) == [BEGIN, END] * turn


async def test_an_unforeseen_fault_is_outlived_and_logged_with_its_traceback(
    faulty_store, sweeper, caplog, observed
):
    faulty_store.fault = RuntimeError("unthought of")
    await sweeper.start()
    await observed.faults.count(3)
    await create(faulty_store, now=LONG_AGO)
    faulty_store.fault = None
    await observed.changes.count(1)
    assert lines(caplog)[0] == (logging.ERROR, True)


async def test_a_store_that_never_answers_counts_as_a_fault(faulty_store, sweeper, observed):
    sweeper._work.timeout = BRIEF
    faulty_store.gate.clear()
    await sweeper.start()
    await observed.faults.count(2)
    await create(faulty_store, now=LONG_AGO)
    sweeper._work.timeout = timedelta(seconds=BOUND)
    faulty_store.gate.set()
    await observed.changes.count(1)


async def test_a_consumer_that_raises_stops_neither_the_sweeper_nor_other_consumers(
    store, feed, sweeper, caplog, observed
):
    def careless(change):
        raise ValueError(change.kind)

    feed.subscribe(careless)
    late = []
    feed.subscribe(late.append)
    for number in range(3):
        await create(store, f"s{number}", now=LONG_AGO)
    await sweeper.start()
    await observed.changes.count(3)
    await observed.reports.count(2)
    assert late == observed.changes.seen
    assert observed.faults.seen == []
    assert lines(caplog) == []


@pytest.mark.parametrize("which", ["on_report", "on_fault"])
async def test_a_report_listener_that_raises_does_not_stop_the_sweeper(
    faulty_store, feed, which, caplog, observed
):
    def careless(_):
        raise ValueError(which)

    faulty_store.fault = StoreUnavailableError("away") if which == "on_fault" else None
    await create(faulty_store, now=LONG_AGO)
    async with Sweeper(faulty_store, feed, **{which: careless}, longest_sleep=BRIEF) as sweeper:
        for _ in range(3):
            faulty_store.entered.clear()
            async with asyncio.timeout(BOUND):
                await faulty_store.entered.wait()
        faulty_store.fault = None
        await observed.changes.count(1)
        assert sweeper.is_alive


async def test_start_and_stop_may_be_called_in_any_order_and_number(store, sweeper, observed):
    await sweeper.stop()
    await sweeper.stop()
    assert not sweeper.is_alive
    for _ in range(3):
        await sweeper.start()
        await sweeper.start()
        assert sweeper.is_alive
        await sweeper.stop()
        await sweeper.stop()
        assert not sweeper.is_alive
    await create(store, now=LONG_AGO)
    await sweeper.start()
    await observed.changes.count(1)


async def test_concurrent_starts_and_stops_leave_one_sweeper_or_none(
    faulty_store, sweeper, observed
):
    def running():
        return [task for task in asyncio.all_tasks() if task.get_name() == "lapse-sweeper"]

    async def worry(seed):
        chance = random.Random(seed)
        for _ in range(50):
            await chance.choice([sweeper.start, sweeper.stop])()
            assert len(running()) <= 1
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)

    async with asyncio.timeout(BOUND):
        await asyncio.gather(*(worry(seed) for seed in range(10)))
        await sweeper.stop()
    assert (running(), faulty_store.inside, faulty_store.most_inside) == ([], 0, 1)
    await create(faulty_store, now=LONG_AGO)
    await sweeper.start()
    await observed.changes.count(1)


async def test_stopping_does_not_wait_for_waiting_sessions_however_many(store, feed, observed):
    await asyncio.gather(
        *(
            store.create(key(f"s{number}"), state=NO_STATE, ttl=NEVER, metadata={})
            for number in range(2000)
        )
    )
    sweeper = Sweeper(store, feed, on_report=observed.reports, longest_sleep=NEVER)
    await sweeper.start()
    await observed.reports.count(1)
    async with asyncio.timeout(BOUND):
        await sweeper.stop()
    assert not sweeper.is_alive


async def test_stopping_finishes_and_publishes_the_current_batch(faulty_store, sweeper, observed):
    await create(faulty_store, now=LONG_AGO)
    faulty_store.gate.clear()
    await sweeper.start()
    async with asyncio.timeout(BOUND):
        await faulty_store.entered.wait()
    stopping = asyncio.create_task(sweeper.stop())
    await asyncio.sleep(0)
    faulty_store.gate.set()
    await stopping
    assert [change.kind for change in observed.changes.seen] == [ChangeKind.EXPIRED]


async def test_stopping_does_not_wait_for_a_store_that_never_answers(
    faulty_store, sweeper, monkeypatch
):
    monkeypatch.setattr(background, "_STOP_TIMEOUT", BRIEF)
    faulty_store.gate.clear()
    await sweeper.start()
    async with asyncio.timeout(BOUND):
        await faulty_store.entered.wait()
        await sweeper.stop()
    assert not sweeper.is_alive
    assert faulty_store.inside == 0


async def test_stopping_wakes_a_sweeper_that_waits_out_an_outage(feed, faulty_store, observed):
    faulty_store.fault = StoreUnavailableError("away")
    sweeper = Sweeper(faulty_store, feed, on_fault=observed.faults, longest_sleep=NEVER)
    await sweeper.start()
    await observed.faults.count(1)
    async with asyncio.timeout(BOUND):
        await sweeper.stop()
    assert not sweeper.is_alive


async def test_a_stopped_sweeper_gets_no_changes(store, feed, sweeper, observed):
    before = feed._subscriptions
    await sweeper.start()
    await observed.reports.count(1)
    assert len(feed._subscriptions) == len(before) + 1
    await sweeper.stop()
    assert feed._subscriptions == before
