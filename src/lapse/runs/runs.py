"""The runs of this process: begun, driven each by a task of its own, followed, and ended."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Final
from weakref import WeakValueDictionary

from lapse.adk.context import observing_appends, reviving
from lapse.adk.service import LapseSessionService
from lapse.auth.principals import is_foreign
from lapse.core.background import Background
from lapse.core.errors import (
    InvalidValueError,
    NoSuchRunError,
    NoSuchSessionError,
    RunInFlightError,
    ShuttingDownError,
    StoreUnavailableError,
    TooManyRunsError,
)
from lapse.core.keys import SHOWN_ID, SessionKey
from lapse.runs.cursor import Place
from lapse.runs.follow import Watching
from lapse.runs.frames import ending, error_of
from lapse.runs.metrics import RunMetrics
from lapse.runs.replay import frames_after, stored_after
from lapse.runs.rules import RunLimits
from lapse.runs.run import Chunks, Run
from lapse.runs.store import HEARTBEAT, RunRecord, RunStatus, RunStore
from lapse.runs.stream import LaggedError
from lapse.telemetry.logs import shortening

_UNWIND: Final = timedelta(seconds=5)
"""How long an agent has to end when it is told to; then it is left to itself, without a say."""

_ALIVE: Final = timedelta(seconds=15)
"""How often a stream without news says that it lives."""

_LOOK: Final = timedelta(milliseconds=250)
"""How often one who waits for another process looks."""

_ATTEMPTS: Final = 5

_log = logging.getLogger("lapse.runs")


class Runs:
    """Drives runs in this process, and lets anybody follow the runs of all processes.

    It is open from `start` to `drain`; both may be called more than once.

    Args:
        service: whose sessions the runs use.
        limits: how much of running this process does.
        metrics: where it is counted.
    """

    def __init__(
        self, service: LapseSessionService, limits: RunLimits, metrics: RunMetrics
    ) -> None:
        self.limits = limits
        self._service = service
        self._store = RunStore(service.store)
        self.metrics = metrics
        self._live: dict[str, Run] = {}
        self._owners: dict[str, asyncio.Task[None]] = {}
        self._left: set[asyncio.Task[None]] = set()
        self._admissions: set[asyncio.Task[Run]] = set()
        self._watching = Watching(self._store)
        self._turns: WeakValueDictionary[SessionKey, asyncio.Lock] = WeakValueDictionary()
        self._queued: Counter[SessionKey] = Counter()
        self._draining = False
        self._heart = Background(
            "the heartbeat of runs",
            self._tick,
            first_retry=HEARTBEAT / 2,
            longest_retry=HEARTBEAT,
        )
        self._alive_at = 0.0

    async def start(self) -> None:
        """Begin to keep the runs of this process alive."""
        if not self._heart.is_running:
            self._draining = False
            self._alive_at = time.monotonic()
            await self._heart.start()

    async def drain(self, grace: timedelta | None = None) -> None:
        """Begin nothing new, let runs finish for the grace, cancel the rest, and tell readers."""
        self._draining = True
        if self._owners:
            allowed = self.limits.grace if grace is None else grace
            await asyncio.wait(self._owners.values(), timeout=allowed.total_seconds())
        while self._owners or self._admissions:
            for run in self._live.values():
                run.end_early(RunStatus.CANCELLED, "the server shut down")
            await asyncio.wait(
                {*self._owners.values(), *self._admissions}, return_when=asyncio.FIRST_COMPLETED
            )
        await self._watching.close()
        await self._heart.stop()

    # What is asked of runs.

    async def begin(
        self, key: SessionKey, open_chunks: Callable[[], Awaitable[Chunks]], *, queue: bool = False
    ) -> Run:
        """Begin a run, detached from whoever asks for it.

        `open_chunks` checks the request and returns what `/run_sse` would send; nothing of the
        agent happens before that is iterated. With `queue` a run in flight is waited for.

        Raises:
            RunInFlightError: a run is in flight, and there is no waiting, or no more of it.
            TooManyRunsError: this process, or this user, has as many runs as there may be.
            ShuttingDownError: this process is about to stop.
            NoSuchSessionError: it is another user's.
        """
        if is_foreign(key.user_id):
            raise NoSuchSessionError(f"session {key.short}… does not exist")
        if not queue:
            return await self._begin(key, open_chunks)
        if self._queued[key] >= self.limits.queue:
            raise await self._in_flight(key)
        turn = self._turns.setdefault(key, asyncio.Lock())
        give_up = time.monotonic() + self.limits.duration.total_seconds()
        self._queued[key] += 1
        try:
            try:
                await asyncio.wait_for(turn.acquire(), self.limits.duration.total_seconds())
            except TimeoutError:
                raise await self._in_flight(key) from None
            try:
                return await self._begin_in_turn(key, open_chunks, give_up)
            finally:
                turn.release()
        finally:
            self._queued[key] -= 1
            self._queued += Counter()  # drops what is zero

    async def find(
        self, key: SessionKey, run_id: str | None = None, place: Place | None = None
    ) -> RunRecord:
        """Return a session's run: the one named, or that of a place in its stream, or the latest.

        Raises:
            NoSuchRunError: there is none.
            InvalidValueError: the place is in no stream of it.
        """
        if is_foreign(key.user_id):
            raise NoSuchRunError("no such run in this session")
        if place is None:
            record = await self._store.find_run(key, run_id)
            if record is None:
                raise NoSuchRunError("no such run in this session")
            return record
        record = await self._store.find_run(key, run_id, event_id=place.anchor)
        if record is None and run_id in {None, place.anchor}:
            record = await self._store.find_run(key, place.anchor)
        if record is None:
            reason = f"is of no run of this session: {place.text!r:.40}"
            raise InvalidValueError("Last-Event-ID", reason)
        return record

    async def follow(
        self, record: RunRecord, place: Place | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a run's stream after a place, or from its start, to its end.

        Raises:
            LaggedError: the reader was too slow; it may resume.
        """
        if place is not None:
            self.metrics.count_resume(record.key.app_name)
            _log.info("run resumed", extra=_facts(record))
        self.metrics.readers.inc()
        with ExitStack() as stack:
            stack.callback(self.metrics.readers.dec)
            run = self._live.get(record.run_id)
            if run is not None:
                chunks = frames_after(self._store, run.stream, record, place)
            elif record.in_flight:
                await self._watching.start()
                stream = stack.enter_context(self._watching.stream(record.run_id))
                chunks = frames_after(self._store, stream, record, place)
            else:
                chunks = stored_after(self._store, record, place)
            try:
                async for chunk in chunks:
                    yield chunk
            except LaggedError:
                self.metrics.dropped.inc()
                _log.info("a reader was too slow and was dropped", extra=_facts(record))
                raise

    async def cancel(self, key: SessionKey, run_id: str) -> RunRecord:
        """Have a run end early and return its record, ended; one that has ended is left.

        A run of another process hears of it with its next heartbeat; when it does not end in
        time, the record still says that it runs.

        Raises:
            NoSuchRunError: there is no such run.
        """
        foreign = is_foreign(key.user_id)
        record = None if foreign else await self._store.cancel_run(key, run_id)
        if record is None:
            raise NoSuchRunError("no such run in this session")
        if not record.in_flight:
            return record
        run, owner = self._live.get(run_id), self._owners.get(run_id)
        if run is not None and owner is not None:
            run.end_early(RunStatus.CANCELLED)
            await asyncio.wait([owner])
            return await self.find(key, run_id)
        end = time.monotonic() + (2 * HEARTBEAT + 2 * _UNWIND).total_seconds()
        while record.in_flight and time.monotonic() < end:
            await asyncio.sleep(_LOOK.total_seconds())
            record = await self.find(key, run_id)
        return record

    # Driving.

    async def _begin(self, key: SessionKey, open_chunks: Callable[[], Awaitable[Chunks]]) -> Run:
        if self._draining or not self._heart.is_running:
            raise ShuttingDownError("this server is shutting down; ask another one")
        if len(self._live) + len(self._admissions) >= self.limits.per_process:
            raise TooManyRunsError(f"there are {self.limits.per_process} runs in this process")
        # To its end, whatever becomes of the caller: no record without somebody who drives it.
        admission = asyncio.create_task(self._admit(key, open_chunks))
        self._admissions.add(admission)
        admission.add_done_callback(self._admissions.discard)
        return await asyncio.shield(admission)

    async def _admit(self, key: SessionKey, open_chunks: Callable[[], Awaitable[Chunks]]) -> Run:
        with reviving(key):
            chunks = await open_chunks()
        record = await self._store.begin_run(
            key, str(uuid.uuid4()), most_of_user=self.limits.per_user
        )
        run = self._live[record.run_id] = Run(record, self._store)
        owner = asyncio.create_task(self._own(run, chunks), name=f"lapse-run-{record.run_id}")
        self._owners[record.run_id] = owner
        return run

    async def _begin_in_turn(
        self, key: SessionKey, open_chunks: Callable[[], Awaitable[Chunks]], give_up: float
    ) -> Run:
        """Begin as soon as no run is in flight."""
        while True:
            try:
                return await self._begin(key, open_chunks)
            except RunInFlightError as error:
                if time.monotonic() > give_up:
                    raise
                owner = self._owners.get(error.run_id)
                pause = _LOOK.total_seconds()
                await (asyncio.wait([owner]) if owner else asyncio.sleep(pause))

    async def _in_flight(self, key: SessionKey) -> RunInFlightError:
        running = await self._store.find_run(key)
        return RunInFlightError(running.run_id if running is not None else "")

    async def _own(self, run: Run, chunks: Chunks) -> None:
        """Drive a run to its end, whatever becomes of it, and record how it ended."""
        record, began = run.record, time.monotonic()
        self.metrics.count_start(record.key.app_name)
        _log.info("run started", extra=_facts(record))
        status, error = RunStatus.FAILED, None
        try:
            with (
                reviving(record.key),
                observing_appends(record.key, run),
                shortening(record.key.session_id),
            ):
                work = asyncio.create_task(run.consume(chunks))
            waited: set[asyncio.Future[Any]] = {work, run.stop}
            limit = self.limits.duration.total_seconds()
            await asyncio.wait(waited, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            status, error = await self._outcome(run, work)
            status = await self._record_end(run, status, error)
        finally:
            run.status = status
            took = timedelta(seconds=time.monotonic() - began)
            del self._live[record.run_id], self._owners[record.run_id]
            run.error = error
            run.begun.set()
            run.stream.end(ending(record.run_id, status, error))
            self.metrics.count_end(record.key.app_name, status, took)
            facts = {"outcome": str(status), "took_s": round(took.total_seconds(), 3)}
            _log.info("run ended", extra=_facts(record) | facts | {"events": run.events})

    async def _outcome(
        self, run: Run, work: asyncio.Task[None]
    ) -> tuple[RunStatus, Mapping[str, Any] | None]:
        """Return how a run ended; end it first if it is time."""
        if not work.done():
            status, reason = run.stop.result() if run.stop.done() else (RunStatus.TIMED_OUT, None)
            work.cancel()
            await asyncio.wait([work], timeout=_UNWIND.total_seconds())
            if not work.done():
                _log.warning("an agent does not end; it is left alone", extra=_facts(run.record))
                self._left.add(work)
                work.add_done_callback(self._forget_left)
            elif not work.cancelled():
                work.exception()
            return status, error_of(status, reason)
        if work.cancelled():
            return RunStatus.CANCELLED, error_of(RunStatus.CANCELLED)
        fault = work.exception()
        if fault is not None:
            _log.error("a run failed", extra=_facts(run.record), exc_info=fault)
            return RunStatus.FAILED, error_of(RunStatus.FAILED, type(fault).__name__)
        return (RunStatus.FAILED, run.error) if run.error is not None else (RunStatus.DONE, None)

    def _forget_left(self, work: asyncio.Task[None]) -> None:
        self._left.discard(work)
        if not work.cancelled():
            work.exception()

    async def _record_end(
        self, run: Run, status: RunStatus, error: Mapping[str, Any] | None
    ) -> RunStatus:
        """Record how a run ended; return how it ended for everybody."""
        await run.settle()
        run.status = status
        for attempt in range(_ATTEMPTS):
            try:
                return await self._stored_end(run, status, error)
            except StoreUnavailableError as fault:
                if attempt == 0:
                    _log.warning("the end of a run cannot be recorded now: %s", fault)
                await asyncio.sleep(HEARTBEAT.total_seconds() * 2**attempt / 16)
        # It is soon taken for dead.
        return RunStatus.INTERRUPTED

    async def _stored_end(
        self, run: Run, status: RunStatus, error: Mapping[str, Any] | None
    ) -> RunStatus:
        run_id = run.record.run_id
        if await self._store.end_run(run_id, status, error=error, until=run.until):
            return status
        # Taken for dead, gone with its session, or done by an attempt that was broken off.
        stored = await self._store.find_run(run.record.key, run_id)
        return RunStatus.INTERRUPTED if stored is None else stored.status

    # Keeping alive.

    async def _tick(self) -> timedelta:
        """Say of the runs in flight that they live, and of their streams."""
        now = time.monotonic()
        if now - self._alive_at >= _ALIVE.total_seconds():
            self._alive_at = now
            self._watching.wake()
            for run in self._live.values():
                run.stream.wake()
        if self._live:
            await self._beat()
        return HEARTBEAT

    async def _beat(self) -> None:
        asked = dict(self._live)
        alive = await self._store.beat_runs(list(asked))
        for run_id, run in asked.items():
            if run_id not in alive:
                run.end_early(
                    RunStatus.INTERRUPTED, "the run was taken for dead, or its session is gone"
                )
            elif alive[run_id]:
                run.end_early(RunStatus.CANCELLED)


def _facts(record: RunRecord) -> dict[str, str]:
    return {
        "app": record.key.app_name,
        "session": record.key.short,
        "run": record.run_id[:SHOWN_ID],
    }
