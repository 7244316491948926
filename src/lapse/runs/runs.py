"""The runs of this process. Each is driven by a task of its own; readers follow its stream."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any, Final

from lapse.adk.context import observing_appends, reviving
from lapse.adk.service import LapseSessionService
from lapse.auth.principals import is_foreign
from lapse.core.background import Background
from lapse.core.errors import (
    InvalidValueError,
    NoSuchRunError,
    RunInFlightError,
    ShuttingDownError,
    no_such_session,
)
from lapse.core.keys import SHOWN_ID, SessionKey
from lapse.runs.changes import StateChanges
from lapse.runs.cursor import Cursor
from lapse.runs.elsewhere import stores_of
from lapse.runs.ending import record_end
from lapse.runs.follow import RemoteStreams
from lapse.runs.frames import ending, error_of
from lapse.runs.metrics import RunMetrics
from lapse.runs.plain import PlainRuns
from lapse.runs.queue import QueueFullError, Queues
from lapse.runs.repeats import NOTHING_KNOWN, Known
from lapse.runs.replay import frames_after, stored_after
from lapse.runs.rules import RunLimits
from lapse.runs.run import Asked, Chunks, Run
from lapse.runs.starting import Started, begin
from lapse.runs.store import HEARTBEAT, RunRecord, RunStatus
from lapse.runs.stream import LaggedError
from lapse.telemetry.logs import shortening

_CANCEL_TIMEOUT: Final = timedelta(seconds=5)
"""How long an agent may take to end after its cancellation. Then it is abandoned: it may go on, but
what it appends is refused."""

_STREAM_HEARTBEAT: Final = timedelta(seconds=15)
"""How often a stream without new frames sends a heartbeat comment."""

_POLL_INTERVAL: Final = timedelta(milliseconds=250)
"""How often the store is polled for the end of another process's run."""

_log = logging.getLogger("lapse.runs")


class Runs:
    """Drives runs in this process, and streams the runs of all processes to readers.

    It accepts runs from `start` to `drain`; both may be called more than once.

    Args:
        service: the service of the runs' sessions.
        limits: the limits of runs.
        metrics: the metrics of runs.
    """

    def __init__(
        self, service: LapseSessionService, limits: RunLimits, metrics: RunMetrics
    ) -> None:
        self.limits = limits
        self._service = service
        self.store, self._repeats = stores_of(service)
        self.metrics = metrics
        self._live: dict[str, Run] = {}
        self._owners: dict[str, asyncio.Task[None]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()
        self._starting: dict[asyncio.Task[Started], SessionKey] = {}
        self.plain = PlainRuns(limits, metrics, self._keys_here, service.holds.run)
        self.changes = StateChanges(self.store, service.holds.has_run)
        self._remote_streams = RemoteStreams(self.store)
        self._queues = Queues(limits.queue, limits.duration)
        self._draining = False
        self._heartbeat = Background(
            "the heartbeat of runs", self._tick, first_retry=HEARTBEAT / 2, longest_retry=HEARTBEAT
        )
        self._stream_heartbeat_at = 0.0

    async def start(self) -> None:
        """Accept runs, and start the heartbeat of this process's runs."""
        if not self._heartbeat.is_running:
            self._draining = False
            self._stream_heartbeat_at = time.monotonic()
            await self._heartbeat.start()

    async def drain(self, grace: timedelta | None = None) -> None:
        """Refuse new runs, wait `grace` for those in flight, cancel the rest and end all streams.

        The grace is by default that of the limits.
        """
        self._draining = True
        if self._owners:
            allowed = self.limits.grace if grace is None else grace
            await asyncio.wait(self._owners.values(), timeout=allowed.total_seconds())
        while self._owners or self._starting:
            for run in self._live.values():
                run.end_early(RunStatus.CANCELLED, "the server shut down")
            left = {*self._owners.values(), *self._starting}
            await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        await self._remote_streams.close()
        await self._heartbeat.stop()

    async def begin(self, asked: Asked, *, queue: bool = False) -> Started:
        """Begin a run. Once it has begun it goes on even if the caller is cancelled.

        A request with an idempotency key that has begun a run before gets that run.

        With `queue` this waits, at most as long as a run may take, while another run is in flight
        in the session; a caller that is cancelled meanwhile leaves the queue.

        Raises:
            RunInFlightError: another run is in flight, and `queue` is false, the queue is full or
                the wait was too long.
            TooManyRunsError: this process or this user has the most runs that the limits allow.
            ShuttingDownError: this process shuts down.
            NoSuchSessionError: the session is another user's, or was deleted since.
            KeyReusedError: the key was sent before with another request.
            TooManyKeysError: this user has the most keys that the limits allow.
        """
        key = asked.key
        if is_foreign(key.user_id):
            raise no_such_session(key.named)
        if not queue:
            return await self._begin(asked)
        give_up = time.monotonic() + self.limits.duration.total_seconds()
        try:
            async with self._queues.turn(key):
                return await self._begin_when_free(asked, give_up)
        except QueueFullError:
            raise await self._in_flight(key) from None

    async def find(
        self, key: SessionKey, run_id: str | None = None, cursor: Cursor | None = None
    ) -> RunRecord:
        """Return a session's run by its id, by a cursor of its stream or by both; else the latest.

        Raises:
            NoSuchRunError: there is no such run.
            InvalidValueError: the cursor belongs to no run of this session, or not to `run_id`.
        """
        if is_foreign(key.user_id):
            raise NoSuchRunError
        if cursor is None:
            record = await self.store.find_run(key, run_id)
            if record is None:
                raise NoSuchRunError
            return record
        record = await self.store.find_run(key, run_id, event_id=cursor.anchor)
        if record is None and run_id in {None, cursor.anchor}:
            record = await self.store.find_run(key, cursor.anchor)
        if record is None:
            reason = f"must be of a run of this session, not {cursor.text!r:.40}"
            raise InvalidValueError("Last-Event-ID", reason)
        return record

    async def follow(
        self, record: RunRecord, cursor: Cursor | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a run's stream to its end, from its start or after a cursor.

        Raises:
            LaggedError: the reader was too slow; it may resume.
        """
        if cursor is not None:
            self.metrics.count_resume(record.key.app_name)
            _log.info("run resumed", extra=_facts(record))
        self.metrics.readers.inc()
        with ExitStack() as stack:
            stack.callback(self.metrics.readers.dec)
            run = self._live.get(record.run_id)
            if run is not None:
                chunks = frames_after(self.store, run.stream, record, cursor)
            elif record.in_flight:
                await self._remote_streams.start()
                stream = stack.enter_context(self._remote_streams.stream(record.run_id))
                chunks = frames_after(self.store, stream, record, cursor)
            else:
                chunks = stored_after(self.store, record, cursor)
            try:
                async for chunk in chunks:
                    yield chunk
            except LaggedError:
                self.metrics.dropped.inc()
                _log.info("a reader was too slow and was dropped", extra=_facts(record))
                raise

    async def ended(self, record: RunRecord) -> RunRecord:
        """Wait until a run has ended, here or elsewhere, and return its record.

        Raises:
            ShuttingDownError: this process shuts down, and the run is another's.
            NoSuchRunError: the run was deleted with its session.
        """
        if (owner := self._owners.get(record.run_id)) is not None:
            await asyncio.wait([owner])
        while (record := await self.find(record.key, record.run_id)).in_flight:
            if self._draining:
                raise ShuttingDownError("this server is shutting down; ask another one")
            await asyncio.sleep(_POLL_INTERVAL.total_seconds())
        return record

    async def known(self, asked: Asked) -> Known:
        """Return what is known of a request; nothing is known of one without a key."""
        if asked.once is None:
            return NOTHING_KNOWN
        return await self._repeats.known(asked.key, asked.once)

    async def message_known(self, asked: Asked, known: Known) -> Known:
        """Return what is known once the message is stored, or the run has ended."""
        while known.run is not None and known.run.in_flight and not known.is_stored:
            await asyncio.sleep(_POLL_INTERVAL.total_seconds())
            known = await self.known(asked)
        return known

    async def cancel(self, key: SessionKey, run_id: str) -> RunRecord:
        """Cancel a run, wait for its end and return its record; a no-op if it has ended.

        A run of another process is cancelled with its next heartbeat. If it does not end in time,
        the record that is returned is still in flight.

        Raises:
            NoSuchRunError: there is no such run.
        """
        foreign = is_foreign(key.user_id)
        record = None if foreign else await self.store.cancel_run(key, run_id)
        if record is None:
            raise NoSuchRunError
        if not record.in_flight:
            return record
        run, owner = self._live.get(run_id), self._owners.get(run_id)
        if run is not None and owner is not None:
            run.end_early(RunStatus.CANCELLED)
            await asyncio.wait([owner])
            return await self.find(key, run_id)
        end = time.monotonic() + (2 * HEARTBEAT + 2 * _CANCEL_TIMEOUT).total_seconds()
        while record.in_flight and time.monotonic() < end:
            await asyncio.sleep(_POLL_INTERVAL.total_seconds())
            record = await self.find(key, run_id)
        return record

    # Driving runs.

    async def _begin(self, asked: Asked) -> Started:
        if self._draining or not self._heartbeat.is_running:
            raise ShuttingDownError("this server is shutting down; ask another one")
        self.plain.check_process()
        # Shielded from the caller's cancellation: a run that is recorded has to be driven.
        starting = asyncio.create_task(self._start_run(asked))
        self._starting[starting] = asked.key
        starting.add_done_callback(self._starting.pop)
        for release in (asked.hold(), self._service.holds.run(asked.key)):
            starting.add_done_callback(partial(_release_at_end, release))
        return await asyncio.shield(starting)

    def _keys_here(self) -> list[SessionKey]:
        """Return the session of each detached run of this process."""
        return [run.record.key for run in self._live.values()] + list(self._starting.values())

    async def _start_run(self, asked: Asked) -> Started:
        await self.changes.ended(asked.key)
        most = self.limits.per_user - self.plain.of(asked.key)
        begun = await begin(self.store, self._repeats, asked, max_per_user=most)
        record, known = begun.record, begun.known
        if begun.chunks is None:
            return Started(record, self._live.get(record.run_id), known)
        run = Run(record, self.store, known)
        self._live[record.run_id] = run
        owner = asyncio.create_task(self._own(run, begun.chunks), name=f"lapse-run-{record.run_id}")
        self._owners[record.run_id] = owner
        return Started(record, run, known, is_new=True)

    async def _begin_when_free(self, asked: Asked, give_up: float) -> Started:
        """Begin as soon as no other run is in flight; after `give_up`, raise RunInFlightError."""
        while True:
            try:
                return await self._begin(asked)
            except RunInFlightError as error:
                if time.monotonic() > give_up:
                    raise
                owner = self._owners.get(error.run_id)
                pause = _POLL_INTERVAL.total_seconds()
                await (asyncio.wait([owner]) if owner else asyncio.sleep(pause))

    async def _in_flight(self, key: SessionKey) -> RunInFlightError:
        running = await self.store.find_run(key)
        return RunInFlightError(running.run_id if running is not None else "")

    async def _own(self, run: Run, chunks: Chunks) -> None:
        """Drive a run to its end, and record how it ended."""
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
            run.error = error
            # Whoever waits for the message need not wait for the record of the end.
            run.begun.set()
            status = await record_end(self.store, run, status, error)
        finally:
            run.status = status
            took = timedelta(seconds=time.monotonic() - began)
            del self._live[record.run_id], self._owners[record.run_id]
            run.error = error
            run.ended()
            run.begun.set()
            run.stream.end(ending(record.run_id, status, error))
            self.metrics.count_end(record.key.app_name, status, took)
            facts = {"outcome": str(status), "took_s": round(took.total_seconds(), 3)}
            _log.info("run ended", extra=_facts(record) | facts | {"events": run.events})

    async def _outcome(
        self, run: Run, work: asyncio.Task[None]
    ) -> tuple[RunStatus, Mapping[str, Any] | None]:
        """Return how a run ended; cancel its agent first if that has not ended."""
        if not work.done():
            status, reason = run.stop.result() if run.stop.done() else (RunStatus.TIMED_OUT, None)
            work.cancel()
            await asyncio.wait([work], timeout=_CANCEL_TIMEOUT.total_seconds())
            run.is_cut_off = True
            if not work.done():
                _log.warning("an agent does not end and is abandoned", extra=_facts(run.record))
                self._abandoned.add(work)
                work.add_done_callback(self._forget_abandoned)
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

    def _forget_abandoned(self, work: asyncio.Task[None]) -> None:
        self._abandoned.discard(work)
        if not work.cancelled():
            work.exception()

    async def _tick(self) -> timedelta:
        """Send the heartbeats of the runs in flight and, less often, those of their streams."""
        now = time.monotonic()
        if now - self._stream_heartbeat_at >= _STREAM_HEARTBEAT.total_seconds():
            self._stream_heartbeat_at = now
            self._remote_streams.wake()
            for run in self._live.values():
                run.stream.wake()
        if self._live:
            await self._beat()
        return HEARTBEAT

    async def _beat(self) -> None:
        asked = dict(self._live)
        alive = await self.store.beat_runs(list(asked))
        for run_id, run in asked.items():
            if run_id not in alive:
                run.end_early(
                    RunStatus.INTERRUPTED, "the run missed its heartbeats, or its session is gone"
                )
            elif alive[run_id]:
                run.end_early(RunStatus.CANCELLED)


def _release_at_end(release: Callable[[], None], starting: asyncio.Task[Started]) -> None:
    started = None if starting.cancelled() or starting.exception() else starting.result()
    if started is not None and started.is_new and started.run is not None:
        started.run.at_end(release)
    else:
        release()


def _facts(record: RunRecord) -> dict[str, str]:
    return {
        "app": record.key.app_name,
        "session": record.key.short,
        "run": record.run_id[:SHOWN_ID],
    }
