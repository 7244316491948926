"""Work in the background that is met from another event loop than its own, or goes on on one."""

import asyncio
import math
import threading
from datetime import timedelta

import pytest
from made_up_time import Clock

from lapse.core.background import FOREVER, Background

SECOND = timedelta(seconds=1)


class Elsewhere:
    """An event loop in a thread of its own."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)


class TwoSteps:
    """Two steps; threads can wait for each."""

    def __init__(self):
        self.taken = [threading.Event() for _ in range(2)]
        self._next = iter(self.taken)

    async def __call__(self):
        next(self._next).set()
        return FOREVER


async def test_it_is_woken_and_stopped_from_another_event_loop():
    step = TwoSteps()
    with Elsewhere() as there:
        work = Background("a test", step)
        there.run(work.start())
        assert await asyncio.to_thread(step.taken[0].wait, 10)
        there.run(asyncio.sleep(0))
        work.wake()
        assert await asyncio.to_thread(step.taken[1].wait, 10)
        await work.stop()
        assert not work.is_running


def test_it_is_woken_from_a_thread_without_an_event_loop():
    step = TwoSteps()
    with Elsewhere() as there:
        work = Background("a test", step)
        there.run(work.start())
        assert step.taken[0].wait(10)
        there.run(asyncio.sleep(0))
        work.wake()
        assert step.taken[1].wait(10)
        there.run(work.stop())


async def test_a_step_in_hand_on_another_event_loop_is_cancelled_there():
    going, cancelled = threading.Event(), threading.Event()

    async def step():
        going.set()
        try:
            await asyncio.sleep(math.inf)
        finally:
            cancelled.set()

    with Elsewhere() as there:
        work = Background("a test", step)
        there.run(work.start())
        assert await asyncio.to_thread(going.wait, 10)
        await work.stop()
        assert cancelled.is_set()
        assert not work.is_running


async def test_a_stop_does_not_wait_for_another_event_loop_that_stands_still():
    begun, going, ends = threading.Event(), threading.Event(), threading.Event()

    async def step():
        if begun.is_set():
            going.set()
            ends.wait(20)
        return FOREVER

    with Elsewhere() as there:
        work = Background("a test", step)
        there.run(work.start())
        begun.set()
        work.wake()
        assert await asyncio.to_thread(going.wait, 10)
        try:
            async with asyncio.timeout(10):
                await work.stop()
        finally:
            ends.set()


async def test_here_a_stop_waits_for_the_end_of_what_it_cancels(clock):
    going, ended = asyncio.Event(), []

    async def step():
        going.set()
        try:
            await asyncio.sleep(math.inf)
        finally:
            await asyncio.sleep(5)
            ended.append(clock.now)

    work = Background("a test", step)
    await work.start()
    await going.wait()
    await work.stop()
    assert len(ended) == 1


class Loops:
    """Has work run on one event loop after another, at one made-up time."""

    def __init__(self, monkeypatch, work):
        self._monkeypatch, self._work = monkeypatch, work
        self.now = 1000.0

    def run(self, seconds, *, wakes=()):
        """Run for so long; wake the work after so many seconds, for so many from then on."""

        async def a_while():
            clock = Clock(asyncio.get_running_loop())
            clock.now = self.now
            self._monkeypatch.setattr("lapse.core.background.time.monotonic", clock.time)
            await self._work.start()
            for after, within in wakes:
                await asyncio.sleep(self.now + after - clock.now)
                self._work.wake(within * SECOND)
            await asyncio.sleep(self.now + seconds - clock.now)
            self.now = clock.now

        asyncio.run(a_while())


@pytest.mark.parametrize(
    ("ran", "wakes", "second"),
    [
        ([4, 20], [(), ()], 1010),
        ([9.5, 20], [(), ()], 1010),
        ([12, 20], [(), ()], 1020),
        ([4, 20], [[(3, 5)], ()], 1008),
        ([4, 20], [(), [(1, 2)]], 1007),
    ],
)
def test_the_next_event_loop_goes_on_where_the_last_one_was(monkeypatch, ran, wakes, second):
    """A pause that one loop has begun ends on the next one, or where somebody woke the work."""
    times = []

    async def step():
        times.append(loops.now if not times else asyncio.get_running_loop().time())
        return 10 * SECOND

    loops = Loops(monkeypatch, Background("a test", step))
    for seconds, wake in zip(ran, wakes, strict=True):
        loops.run(seconds, wakes=wake)
    assert times[0] == 1000
    assert second in [pytest.approx(one) for one in times]
    assert not [one for one in times[1:] if one < min(second, 1010) - 0.001]


def test_a_pause_after_a_failure_goes_on_there_too_and_no_wake_shortens_it(monkeypatch, jitter):
    times = []

    async def step():
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise OSError("no")
        return FOREVER

    loops = Loops(monkeypatch, Background("a test", step, first_retry=10 * SECOND))
    loops.run(4, wakes=[(1, 0)])
    loops.run(20, wakes=[(1, 0)])
    assert times == [1000, 1010]
