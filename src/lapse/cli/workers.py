"""The worker processes of one server: a parent starts them, replaces those that die, ends all.

The parent opens the sockets, and every worker accepts on them: a connection goes to a worker that
has time for it. uvicorn has such a parent, too (`uvicorn.supervisors.Multiprocess`), with the same
way to share sockets. It looks at signals and workers every half second, lets nothing through to
workers that are ending, starts one that dies at once again without a pause, and its workers
outlive a parent that is killed. What changes that would replace nearly all of it.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Final

from lapse.cli.command import Exit
from lapse.core.errors import LapseError

Work = Callable[[int, Callable[[], None]], None]
"""What a worker does: it gets its number and what it calls once it serves, and returns at its end.
It is sent to another process, so it can be pickled."""

_SPAWN: Final = multiprocessing.get_context("spawn")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_LONG: Final = timedelta(minutes=1)
"""A worker that has served for this long begins anew: the next one does not wait to start."""

_FIRST_PAUSE: Final = timedelta(milliseconds=500)
_LONGEST_PAUSE: Final = timedelta(seconds=30)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker could not start.

    Attributes:
        text: what to print; None: the worker has logged it.
        status: the exit status of the command.
        why: how the log puts it.
    """

    text: str | None
    status: int
    why: str


class Workers:
    """Keeps workers running until a signal comes, or until one cannot start.

    A worker that ends after it has served is replaced: at once, and after growing pauses if its
    successors end soon, too. A worker that ends before it serves ends all, unless others serve by
    then, as when the database is away for a moment.

    Every SIGINT and SIGTERM is passed on to all workers, so each does what a server of one process
    does with it. Workers also end when the parent is gone, however it ended.

    Args:
        work: what each worker does.
        number: how many there are.
        on_started: called once all of them serve.
        on_ended: called with the number of each worker that has ended.
        on_ending: called once all are told to end.
        on_orphaned: called by each worker whose parent is gone; it can be pickled, too.
    """

    def __init__(
        self,
        work: Work,
        number: int,
        *,
        on_started: Callable[[], None],
        on_ended: Callable[[int], None],
        on_ending: Callable[[], None],
        on_orphaned: Callable[[], None],
    ) -> None:
        self._work = work
        self._on_ending = on_ending
        self._on_orphaned = on_orphaned
        self._number = number
        self._on_started = on_started
        self._on_ended = on_ended
        self._living: dict[int, _Worker] = {}
        self._have_served: set[int] = set()
        self._signals: list[int] = []
        self._failure: Failure | None = None
        self._is_over = asyncio.Event()

    def run(self) -> Failure | None:
        """Return once all workers have ended: why, if one could not start."""
        with ThreadPoolExecutor(self._number) as waiting:
            asyncio.run(self._run(waiting))
        return self._failure

    def end_by_signals(self) -> None:
        """End this process as the signals say that `run` got, the last one first."""
        for got in reversed(self._signals):
            signal.raise_signal(got)

    async def _run(self, waiting: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        for one in _SIGNALS:
            loop.add_signal_handler(one, self._pass_on, one)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(1, self._number + 1):
                    group.create_task(self._keep(number, waiting))
        finally:
            for one in _SIGNALS:
                loop.remove_signal_handler(one)
            self._end()  # after an error of the parent's own; else none lives

    def _pass_on(self, got: int) -> None:
        self._signals.append(got)
        self._end(got)

    def _end(self, by: int = signal.SIGTERM) -> None:
        for worker in self._living.values():
            worker.send(by)
        if not self._is_over.is_set():
            self._is_over.set()
            self._on_ending()

    async def _keep(self, number: int, waiting: ThreadPoolExecutor) -> None:
        """Run a worker, and its successors."""
        loop, early = asyncio.get_running_loop(), 0
        while not self._is_over.is_set():
            began = loop.time()
            try:
                worker = _Worker(
                    self._work, number, on_serving=self._served, on_orphaned=self._on_orphaned
                )
            except OSError as error:  # no memory, no process or no file is left
                has_served, failure = False, _not_begun(number, error)
            else:
                self._living[number] = worker
                status = await loop.run_in_executor(waiting, worker.wait)
                worker.close()
                del self._living[number]
                has_served, failure = worker.serves, worker.failure or _failure_of(number, status)
                self._on_ended(number)
            if self._is_over.is_set():
                return
            if not has_served and not self._others_serve:
                self._failure = failure
                self._end()
                return
            early = 0 if loop.time() - began > _LONG.total_seconds() else early + 1
            pause = _pause(early)
            _log.warning(
                "worker %d ended (%s) and starts again%s",
                number,
                failure.why,
                f" in {pause.total_seconds():.1f} s" if pause else "",
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), pause.total_seconds())

    @property
    def _others_serve(self) -> bool:
        """Return whether all have served once, and one does now."""
        all_have = len(self._have_served) == self._number
        return all_have and any(worker.serves for worker in self._living.values())

    def _served(self, number: int) -> None:
        if len(self._have_served) < self._number:
            self._have_served.add(number)
            if len(self._have_served) == self._number and not self._is_over.is_set():
                self._on_started()


class _Worker:
    """A worker process, as its parent sees it."""

    def __init__(
        self,
        work: Work,
        number: int,
        *,
        on_serving: Callable[[int], None],
        on_orphaned: Callable[[], None],
    ) -> None:
        self.number = number
        self.serves = False
        self.failure: Failure | None = None
        self._on_serving = on_serving
        self._reports, theirs = _SPAWN.Pipe()
        given = (work, number, theirs, on_orphaned)
        self._process = _SPAWN.Process(target=_be_worker, args=given)
        self._process.start()
        theirs.close()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reports.fileno(), self._read)
        self._has_ended = False

    def wait(self) -> int:
        """Wait until it has ended, and return its exit status; negative: the signal that did it."""
        self._process.join()
        status = self._process.exitcode
        assert status is not None, "it was waited for"
        return status

    def send(self, number: int) -> None:
        """Send it a signal."""
        pid = self._process.pid
        if not self._has_ended and pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self) -> None:
        """Take what it reported at last: it has ended."""
        self._has_ended = True
        self._read()
        self._loop.remove_reader(self._reports.fileno())
        self._reports.close()

    def _read(self) -> None:
        """Take what it has reported: that it serves, or why it cannot."""
        try:
            while self._reports.poll():
                self.failure = self._reports.recv()
                if self.failure is None:
                    self.serves = True
                    self._on_serving(self.number)
        except (EOFError, OSError):
            self._loop.remove_reader(self._reports.fileno())


def _be_worker(
    work: Work, number: int, reports: Connection, on_orphaned: Callable[[], None]
) -> None:
    """Be a worker; it runs in the worker's process."""
    # A terminal sends Ctrl-C to the parent alone, which passes it on.
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, args=(reports, on_orphaned), daemon=True).start()
    try:
        work(number, lambda: reports.send(None))
    except KeyboardInterrupt:  # of the signal that has ended it
        sys.exit(128 + signal.SIGINT)
    except LapseError as error:
        reports.send(Failure(f"lapse: {error}", Exit.FAILED, str(error)))
        sys.exit(Exit.FAILED)
    except Exception:  # noqa: BLE001 - the parent prints it, once for all workers
        told = traceback.format_exc().rstrip("\n")
        reports.send(Failure(told, Exit.FAILED, told.splitlines()[-1]))
        sys.exit(Exit.FAILED)


def _end_with_parent(reports: Connection, on_orphaned: Callable[[], None]) -> None:
    """End this worker in order when its parent is gone."""
    with suppress(EOFError, OSError):
        reports.recv()
    on_orphaned()
    os.kill(os.getpid(), signal.SIGTERM)


def _not_begun(number: int, error: OSError) -> Failure:
    why = f"its process cannot be started: {error}"
    return Failure(f"lapse: worker {number}: {why}", Exit.FAILED, why)


def _failure_of(number: int, status: int) -> Failure:
    """Return why a worker has ended that has not told."""
    if status < 0:
        why = signal.Signals(-status).name
        return Failure(f"lapse: worker {number} ended before it served ({why})", Exit.FAILED, why)
    return Failure(None, status or Exit.FAILED, f"status {status}")


def _pause(early: int) -> timedelta:
    """Return how long to wait after so many workers in a row that ended soon."""
    if early <= 1:
        return timedelta(0)
    doublings = min(early - 2, 10)
    return min(_FIRST_PAUSE * (1 << doublings), _LONGEST_PAUSE) * random.uniform(0.75, 1)
