"""Work that a process does beside its requests, one step after another, until it is stopped.

This is the only loop of its kind: all work in the background takes its steps here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import timedelta
from typing import Any, Final, Self

from lapse.core.errors import LapseError
from lapse.core.forks import Forked
from lapse.core.loops import may_end_with_its_loop

FOREVER: Final = timedelta(days=36_500)
"""The pause of a step after which there is nothing to do until `wake`."""

_TIMEOUT: Final = timedelta(minutes=1)
_FIRST_RETRY: Final = timedelta(seconds=1)
_LONGEST_RETRY: Final = timedelta(minutes=1)
_STOP_TIMEOUT: Final = timedelta(milliseconds=500)

_log = logging.getLogger(__name__)


class Work(ABC):
    """Work in the background, from `start` to `stop`.

    Both may be called in any order and any number of times: a start of work that runs, and a stop
    of work that does not run, do nothing. As an asynchronous context manager it starts and stops.
    """

    @abstractmethod
    async def start(self) -> None:
        """Start on the running event loop."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop, and return once stopped."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Background(Work, Forked):
    """Takes steps from `start` to `stop`; each step returns the pause until the next one.

    A step that fails, or takes longer than the time-out, is taken again after a growing, jittered
    pause. One line is logged when the failures begin and one when they end.

    It may be started on one event loop after another: work whose loop was closed, or stands still,
    has ended. The next start then goes on where it was, and takes the next step when that is due.

    Args:
        name: its name in the log.
        step: one bounded piece of work.
        timeout: how long a step may take.
        first_retry: the pause after the first failure, before jitter; None: a second.
        longest_retry: the longest pause after a failure.
        within: makes a context that is entered before the first step and left after the last; it
            is entered again after it failed.
        on_fault: called with each failure; it must not fail itself.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[timedelta]],
        *,
        timeout: timedelta = _TIMEOUT,
        first_retry: timedelta | None = None,
        longest_retry: timedelta = _LONGEST_RETRY,
        within: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        on_fault: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.timeout = timeout
        self.longest_retry = longest_retry
        self._name = name
        self._step = step
        self._first_retry = first_retry
        self._within = within
        self._on_fault = on_fault
        self._guard = threading.Lock()
        self._run: _Run | None = None
        self._failures = 0
        self._next_at = -math.inf
        """When the next step is due, whichever event loop takes it."""
        self.survive_forks()

    @property
    def is_running(self) -> bool:
        """Return whether it has started and has not ended."""
        return self._run is not None and not self._run.is_over

    def after_fork_in_child(self) -> None:
        """Begin as if it had never been started."""
        self._guard = threading.Lock()
        self._run, self._failures, self._next_at = None, 0, -math.inf

    @property
    def idle(self) -> timedelta:
        """Return the time since a step last succeeded; before the first one, since the start."""
        since = -math.inf if self._run is None else self._run.worked_at
        return timedelta(seconds=min(time.monotonic() - since, FOREVER.total_seconds()))

    async def start(self) -> None:
        """Start on the running event loop; while it is stopping, wait for its end first."""
        while True:
            with self._guard:
                run = self._run
                if run is None or run.is_over:
                    if run is not None:
                        run.tell_to_stop()  # in case its event loop goes on one day
                    self._run = _Run()
                    self._run.begin(self._work(self._run), f"lapse-{self._name.split()[-1]}")
                    return
                if not run.stopping:
                    return
            await run.ended()

    async def stop(self) -> None:
        """Stop, and return once stopped.

        The step in hand has half a second to finish; then it is cancelled.
        """
        run = self._run
        if run is None:
            return
        run.tell_to_stop()
        if not await run.ended(within=_STOP_TIMEOUT):
            run.cancel()
            # This event loop runs, so the end will come; another loop may have stopped running.
            await run.ended(within=None if run.is_here else _STOP_TIMEOUT)
        with self._guard:
            if self._run is run:
                self._run, self._failures, self._next_at = None, 0, -math.inf

    def wake(self, after: timedelta = timedelta(0)) -> None:
        """Take the next step after this time at the latest; callable from any thread.

        A call during a step shortens the pause after it, but never the pause after a failure.
        """
        run = self._run
        if run is not None and not run.is_over:
            moment = time.monotonic() + after.total_seconds()
            if not self._failures:
                self._next_at = min(self._next_at, moment)
            run.expect(moment)

    async def first_step(self, *, within: timedelta) -> None:
        """Wait until the first step has been taken or has failed, but no longer than this time."""
        run = self._run
        if run is not None and run.is_here and not run.stepped.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(within.total_seconds()):
                    await run.stepped.wait()

    async def _work(self, run: _Run) -> None:
        while not run.stopping:
            try:
                async with self._within():
                    await self._rest(run)
                    while not run.stopping:
                        await self._take(run)
            except Exception as error:  # noqa: BLE001 - the context failed: it is entered again
                await run.sleep(self._failed(error), may_wake=False)

    async def _rest(self, run: _Run) -> None:
        """Wait until the step is due that an earlier run, on another event loop, has left."""
        rest = self._next_at - time.monotonic()
        if rest > 0:
            run.stepped.set()
            await run.sleep(timedelta(seconds=rest), may_wake=not self._failures)

    async def _take(self, run: _Run) -> None:
        """Take a step, and wait until the next one is due."""
        run.due = run.wakes_at = math.inf
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                pause = await self._step()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next step may work
            pause = self._failed(error)
        else:
            if self._failures:
                _log.warning("%s works again, after %d failures", self._name, self._failures)
            self._failures = 0
            run.worked_at = time.monotonic()
            self._next_at = min(run.worked_at + pause.total_seconds(), run.due)
        run.stepped.set()
        await run.sleep(pause, may_wake=not self._failures)

    def _failed(self, error: Exception) -> timedelta:
        """Log the first of several failures, and return the pause after it."""
        self._on_fault(error)
        self._failures += 1
        if self._failures == 1:
            known = isinstance(error, LapseError | OSError)
            _log.error(
                "%s cannot work and will keep trying: %s",
                self._name,
                str(error) or type(error).__name__,
                exc_info=None if known else error,
            )
        first = _FIRST_RETRY if self._first_retry is None else self._first_retry
        growing = min(first * (1 << min(self._failures - 1, 10)), self.longest_retry)
        pause = growing * (0.5 + random.random() / 2)
        self._next_at = time.monotonic() + pause.total_seconds()
        return pause


class _Run:
    """The work from one start to its end; it belongs to the event loop that it started on."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopping = False
        self.stepped = asyncio.Event()
        self.worked_at = time.monotonic()
        self.due = math.inf
        """When `wake` wants the next step, at the latest."""
        self.wakes_at = math.inf
        """When the present pause ends."""
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._over: Future[None] = Future()
        self._over.set_running_or_notify_cancel()  # so that nobody who waits for it can cancel it

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start the task; the run is over when it ends."""
        self._task = may_end_with_its_loop(self.loop.create_task(work, name=name))
        self._task.add_done_callback(lambda _: self._over.set_result(None))

    @property
    def is_over(self) -> bool:
        """Return whether the task has ended, or its event loop does not run any more."""
        return self._over.done() or not self.loop.is_running()

    @property
    def is_here(self) -> bool:
        """Return whether the caller is on the run's event loop."""
        return asyncio.get_running_loop() is self.loop

    async def ended(self, within: timedelta | None = None) -> bool:
        """Wait for the end, on any event loop; return whether it came in time."""
        if self.is_over:
            return True
        seconds = None if within is None else within.total_seconds()
        await asyncio.wait([asyncio.wrap_future(self._over)], timeout=seconds)
        return self.is_over

    def tell_to_stop(self) -> None:
        """Ask the task to end after the step in hand."""
        self.stopping = True
        self._in_loop(self._woken.set)

    def cancel(self) -> None:
        """Cancel the task, also in the middle of a step."""
        assert self._task is not None
        self._in_loop(self._task.cancel)

    def expect(self, moment: float) -> None:
        """Take the next step at this moment of the monotonic clock at the latest."""
        self.due = min(self.due, moment)
        if moment < self.wakes_at:
            self._in_loop(self._woken.set)

    async def sleep(self, pause: timedelta, *, may_wake: bool) -> None:
        """Pause; end early if the run is to stop or, with `may_wake`, if a step is due."""
        end = time.monotonic() + pause.total_seconds()
        while not self.stopping:
            self._woken.clear()
            self.wakes_at = min(end, self.due) if may_wake else end
            rest = self.wakes_at - time.monotonic()
            if rest <= 0:
                await asyncio.sleep(0)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._woken.wait()

    def _in_loop(self, work: Callable[[], object]) -> None:
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            work()
        else:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self.loop.call_soon_threadsafe(work)
