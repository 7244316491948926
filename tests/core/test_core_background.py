"""Work in the background: its pauses, failures, wake-ups and ends, at a made-up time."""

import asyncio
import logging
import math
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from made_up_time import Steps

from lapse.core.background import FOREVER, Background
from lapse.core.errors import StoreUnavailableError

SECOND = timedelta(seconds=1)


async def test_each_step_tells_the_pause_until_the_next(clock):
    steps = Steps(clock, SECOND, 3 * SECOND, FOREVER)
    async with Background("a test", steps) as work:
        await steps.taken.wait()
        assert work.is_running
    assert steps.pauses == [1, 3]
    assert not work.is_running


@pytest.mark.parametrize(("drawn", "share"), [(0.0, 0.5), (1.0, 1.0)])
async def test_the_pause_after_failures_doubles_up_to_the_longest_and_is_jittered(
    clock, jitter, drawn, share
):
    jitter[0] = drawn
    steps = Steps(clock, *[OSError("no")] * 9, FOREVER)
    async with Background("a test", steps):
        await steps.taken.wait()
    assert steps.pauses == [share * pause for pause in (1, 2, 4, 8, 16, 32, 60, 60, 60)]


async def test_the_first_and_the_longest_pause_after_a_failure_can_be_given(clock, jitter):
    steps = Steps(clock, *[OSError("no")] * 14, FOREVER)
    first, longest = SECOND / 1000, timedelta(hours=1)
    async with Background("a test", steps, first_retry=first, longest_retry=longest):
        await steps.taken.wait()
    assert steps.pauses == [pytest.approx(0.001 * 2 ** min(n, 10)) for n in range(14)]


async def test_the_first_failure_and_the_end_of_all_are_logged_and_each_is_told(
    clock, jitter, caplog
):
    faults = []
    refused = StoreUnavailableError("no room")
    steps = Steps(clock, refused, ValueError("odd"), SECOND, ZeroDivisionError(), SECOND, FOREVER)
    async with Background("a test", steps, on_fault=faults.append):
        await steps.taken.wait()
    assert [type(fault) for fault in faults] == [
        StoreUnavailableError,
        ValueError,
        ZeroDivisionError,
    ]
    told = [(one.levelno, one.getMessage(), bool(one.exc_info)) for one in caplog.records]
    assert told == [
        (logging.ERROR, f"a test cannot work and will keep trying: {refused}", False),
        (logging.WARNING, "a test works again, after 2 failures", False),
        (logging.ERROR, "a test cannot work and will keep trying: ZeroDivisionError", True),
        (logging.WARNING, "a test works again, after 1 failures", False),
    ]


async def test_a_step_that_takes_too_long_fails(clock, jitter):
    times = []

    async def step():
        times.append(clock.now)
        if len(times) == 1:
            await asyncio.sleep(math.inf)
        done.set()
        return FOREVER

    done = asyncio.Event()
    async with Background("a test", step, timeout=5 * SECOND):
        await done.wait()
    assert times[1] - times[0] == 6


async def test_a_wake_takes_the_next_step_at_its_time_at_the_latest(clock):
    steps = Steps(clock, FOREVER, FOREVER, 2 * SECOND, FOREVER)
    async with Background("a test", steps) as work:
        await work.first_step(within=SECOND)
        work.wake(3 * SECOND)
        work.wake(9 * SECOND)  # later than what is asked for already
        await steps.until(2)
        work.wake()
        await steps.until(3)
        work.wake(7 * SECOND)  # the pause ends before
        await steps.taken.wait()
    assert steps.pauses == [3, 0, 2]


async def test_a_wake_does_not_shorten_the_pause_after_a_failure(clock, jitter):
    steps = Steps(clock, OSError("no"), FOREVER)
    async with Background("a test", steps, first_retry=8 * SECOND) as work:
        await work.first_step(within=SECOND)
        work.wake()
        await steps.taken.wait()
    assert steps.pauses == [8]


async def test_a_wake_of_what_does_not_run_does_nothing(clock):
    steps = Steps(clock, FOREVER)
    work = Background("a test", steps)
    work.wake()
    await work.first_step(within=SECOND)
    await work.stop()
    async with work:
        await work.first_step(within=SECOND)
    work.wake()
    assert len(steps.times) == 1


async def test_the_first_step_is_waited_for_no_longer_than_asked(clock):
    async def step():
        await asyncio.sleep(100)
        return FOREVER

    async with Background("a test", step, timeout=timedelta(hours=1)) as work:
        began = clock.now
        await work.first_step(within=5 * SECOND)
        assert clock.now - began == 5
        await work.first_step(within=timedelta(hours=1))
        assert clock.now - began == pytest.approx(100)
        await work.first_step(within=timedelta(hours=1))
        assert clock.now - began == pytest.approx(100)


async def test_a_second_start_does_nothing_and_one_after_the_end_begins_anew(clock):
    steps = Steps(clock, FOREVER)
    work = Background("a test", steps)
    await work.start()
    await work.start()
    assert [task.get_name() for task in asyncio.all_tasks()].count("lapse-test") == 1
    await work.first_step(within=SECOND)
    await work.stop()
    await work.stop()
    await work.start()
    await work.first_step(within=SECOND)
    await work.stop()
    assert len(steps.times) == 2


async def test_a_start_waits_for_the_end_of_what_stops(clock):
    going, steps = asyncio.Event(), []

    async def step():
        steps.append(clock.now)
        going.set()
        await asyncio.sleep(0.25)
        return FOREVER

    work = Background("a test", step)
    await work.start()
    await going.wait()
    stopping = asyncio.create_task(work.stop())
    await asyncio.sleep(0)
    await work.start()
    await stopping
    await work.first_step(within=SECOND)
    assert len(steps) == 2
    await work.stop()


async def test_a_step_in_hand_has_half_a_second_to_finish_and_is_cancelled_then(clock):
    ended = []

    async def step():
        going.set()
        try:
            await asyncio.sleep(lasts)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        ended.append("finished")
        return FOREVER

    for lasts in (0.25, 2.0):
        going = asyncio.Event()
        work = Background("a test", step)
        await work.start()
        await going.wait()
        began = clock.now
        await work.stop()
        assert clock.now - began == pytest.approx(min(lasts, 0.5))
    assert ended == ["finished", "cancelled"]


async def test_the_time_since_a_step_succeeded_is_told(clock, jitter):
    steps = Steps(clock, SECOND, OSError("no"), FOREVER)
    work = Background("a test", steps, first_retry=60 * SECOND)
    assert work.idle == FOREVER
    async with work:
        await work.first_step(within=SECOND)
        assert work.idle == timedelta(0)
        await steps.until(2)
        await asyncio.sleep(10)
        assert work.idle >= 11 * SECOND


async def test_a_context_is_entered_before_the_first_step_and_again_after_it_failed(clock, jitter):
    told = []

    @asynccontextmanager
    async def within():
        told.append("in")
        if told.count("in") == 1:
            raise OSError
        yield
        told.append("out")

    steps = Steps(clock, SECOND, FOREVER)
    async with Background("a test", steps, within=within):
        await steps.taken.wait()
        assert told == ["in", "in"]
    assert told == ["in", "in", "out"]
    assert steps.times[0] == 1001


async def test_what_fails_in_the_context_is_told_and_no_wake_shortens_its_pause(clock, jitter):
    faults, broken = [], [OSError("no")]

    @asynccontextmanager
    async def within():
        if broken:
            raise broken.pop()
        yield

    steps = Steps(clock, FOREVER)
    work = Background(
        "a test", steps, within=within, first_retry=8 * SECOND, on_fault=faults.append
    )
    began = clock.now
    await work.start()
    await asyncio.sleep(0.5)
    work.wake()
    await steps.taken.wait()
    await work.stop()
    assert [str(fault) for fault in faults] == ["no"]
    assert steps.times == [began + 8]


async def test_a_wake_before_the_first_step_is_no_fault(clock):
    steps = Steps(clock, FOREVER)
    async with Background("the odd test", steps) as work:
        work.wake()
        assert work.idle == timedelta(0)
        assert "lapse-test" in {task.get_name() for task in asyncio.all_tasks()}
        await steps.taken.wait()


async def test_after_a_stop_earlier_failures_are_forgotten(clock, jitter, caplog):
    steps = Steps(clock, OSError("no"), FOREVER, FOREVER, SECOND, FOREVER)
    work = Background("a test", steps)
    await work.start()
    await work.first_step(within=SECOND)
    await work.stop()
    caplog.clear()
    for taken in (2, 3):
        async with work:
            await steps.until(taken)
            await asyncio.sleep(0)
    assert not caplog.records


async def test_a_child_after_a_fork_begins_as_if_nothing_had_been_started(clock, jitter, caplog):
    steps = Steps(clock, OSError("no"), FOREVER)
    work = Background("a test", steps)
    await work.start()
    await work.first_step(within=SECOND)
    parents = work._run
    work._guard.acquire()  # as another thread of the parent may have
    work.after_fork_in_child()
    assert not work.is_running
    caplog.clear()
    async with work:
        await work.first_step(within=SECOND)
        assert steps.pauses == [0]
    assert not caplog.records
    parents.tell_to_stop()
    await parents.ended()
