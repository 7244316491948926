"""Lanes: threads that run SQLite work for the event loop, and commit waiting work together.

A lane owns a connection per thread and one queue. A thread takes all jobs that have queued up, runs
them in one transaction and answers their callers after the commit: with 32 writers waiting, one
commit, and so one fsync, serves them all.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from lapse.core.errors import LapseError, OutcomeUnknownError, StoreUnavailableError
from lapse.store.database import CLOSED
from lapse.store.sqlite.batch import Batch

T = TypeVar("T")


class LaneClosedError(StoreUnavailableError):
    """The lane takes no work any more; this work was not begun."""


_Work = Callable[[Batch], Any]


@dataclass(frozen=True, slots=True)
class _Job:
    work: _Work
    answer: asyncio.Future[Any]
    flushed: bool = True


_Outcome = tuple[_Job, Any, Exception | None]


class Lane:
    """Runs functions on a connection, in transactions, on threads of its own.

    No failure of SQLite's ends a thread. If one ends all the same, the lane is closed: work is
    refused, and never waits for a thread that is not there.

    Args:
        name: the name of its threads.
        connect: opens a connection; called once for each thread.
        place: the file, as errors name it.
        begin: begins a transaction, and returns whether it had to wait for another process.
        threads: how many threads, each with a connection, share the queue.
        most: the maximum of jobs in one transaction.
        check: called before each transaction; if it raises, the transaction's jobs are refused.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        *,
        place: str = ":memory:",
        begin: Callable[[sqlite3.Connection], bool],
        threads: int,
        most: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._place = place
        self._begin = begin
        self._most = most
        self._check = check
        self._flushes: dict[sqlite3.Connection, bool] = {}
        """Whether a connection's commits wait for the disk; left out where that is not known."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._open = True
        self._reason = CLOSED
        """Why work is refused, once the lane is not open."""
        self._connections = [connect() for _ in range(threads)]
        self._threads = [
            threading.Thread(
                target=self._serve, args=(connection,), name=f"lapse-{name}-{number}", daemon=True
            )
            for number, connection in enumerate(self._connections)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[Batch], T], *, flushed: bool = True) -> T:
        """Run `work` in a transaction and return its result after the commit.

        With `flushed=False` a power cut may undo it, unless flushed work was committed since: this
        is for work that means nothing once the process is gone.

        `work` must have no effects outside the connection: it is run again if another job of the
        same transaction fails half-way. Cancelling the caller does not undo it.

        Raises:
            LaneClosedError: the lane is closed.
            StoreUnavailableError: SQLite failed; nothing was written.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._gate:
            if not self._open:
                raise LaneClosedError(self._reason)
            self._jobs.put(_Job(work, answer, flushed))
        return await answer

    def close(self, *, connections: bool = True) -> None:
        """Finish the queued work, stop the threads and close the connections. Blocks.

        Without `connections` whoever made them keeps them.
        """
        with self._gate:
            if self._open:
                self._open = False
                for _ in self._threads:
                    self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        for connection in self._connections if connections else ():
            connection.close()

    def _serve(self, connection: sqlite3.Connection) -> None:
        jobs: list[_Job] | None = []
        try:
            while (jobs := self._take()) is not None:
                _answer(self._run_together(connection, jobs))
        except BaseException:
            self._fail(jobs or ())
            raise

    def _fail(self, begun: Sequence[_Job]) -> None:
        """Close the lane, because a thread of it ends that should not, and answer all callers."""
        ended = f"SQLite ({self._place}): a thread of the store has ended; restart the process"
        with self._gate:
            self._open, self._reason = False, ended
            waiting = []
            with suppress(queue.Empty):
                while True:
                    waiting.append(self._jobs.get_nowait())
            for _ in self._threads:
                self._jobs.put(None)
        _answer([(job, None, OutcomeUnknownError(ended)) for job in begun])
        _answer([(job, None, StoreUnavailableError(ended)) for job in waiting if job is not None])

    def _take(self) -> list[_Job] | None:
        first = self._jobs.get()
        if first is None:
            return None
        jobs = [first]
        self._add_waiting(jobs)
        return jobs

    def _add_waiting(self, jobs: list[_Job]) -> None:
        """Add the jobs that wait, as far as there is room."""
        while len(jobs) < self._most:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._jobs.put(None)
                return
            jobs.append(job)

    def _run_together(
        self, connection: sqlite3.Connection, jobs: list[_Job], *, alone: bool = False
    ) -> list[_Outcome]:
        """Run jobs in one transaction, with those that come while it waits to begin.

        If one fails, each is run `alone`.
        """
        flushed = any(job.flushed for job in jobs)
        try:
            has_waited = self._start(connection, flushed=flushed)
        except Exception as error:  # noqa: BLE001 - the callers of the jobs get it
            # No job is at fault, and one wait for the lock is enough for all of them.
            return [(job, None, self._translated(error)) for job in jobs]
        if has_waited and flushed and not alone:  # a commit that is flushed serves all
            self._add_waiting(jobs)
        try:
            batch = Batch(connection)
            outcomes = [self._run_one(batch, job) for job in jobs]
            batch.write()
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the caller of the job gets it
            with suppress(sqlite3.Error):  # the next transaction begins with it
                _roll_back(connection)
            if len(jobs) == 1:
                return [(jobs[0], None, self._translated(error))]
            return [
                outcome
                for job in jobs
                for outcome in self._run_together(connection, [job], alone=True)
            ]
        return outcomes

    def _start(self, connection: sqlite3.Connection, *, flushed: bool) -> bool:
        """Begin a transaction whose commit waits for the disk if one of its jobs is flushed.

        Return whether it had to wait.
        """
        self._check()
        _roll_back(connection)
        if self._flushes.get(connection) is not flushed:
            self._flushes.pop(connection, None)
            connection.execute(f"PRAGMA synchronous = {'FULL' if flushed else 'NORMAL'}")
            self._flushes[connection] = flushed
        return self._begin(connection)

    @staticmethod
    def _run_one(batch: Batch, job: _Job) -> _Outcome:
        """Run one job; its refusal (`LapseError`) is its outcome, unless it had begun to write."""
        before = batch.changes
        try:
            return (job, job.work(batch), None)
        except LapseError as error:
            if batch.changes != before:
                raise
            return (job, None, error)

    def _translated(self, error: Exception) -> Exception:
        is_ours = isinstance(error, sqlite3.DatabaseError)
        if not is_ours or isinstance(error, sqlite3.IntegrityError):
            return error
        unavailable = StoreUnavailableError(f"SQLite ({self._place}): {error}")
        unavailable.__cause__ = error
        return unavailable


def _answer(outcomes: Sequence[_Outcome]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        loops.setdefault(outcome[0].answer.get_loop(), []).append(outcome)
    for loop, own in loops.items():
        try:
            loop.call_soon_threadsafe(_settle, own)
        except RuntimeError:
            # The callers' loop is closed, so nobody waits for the outcomes. The work is done.
            continue


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for job, result, error in outcomes:
        if job.answer.done():
            continue
        if error is None:
            job.answer.set_result(result)
        else:
            job.answer.set_exception(error)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
