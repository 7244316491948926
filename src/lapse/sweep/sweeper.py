"""The sweep: it expires waiting sessions that are due, and purges expired ones that are due.

`sweep_once` does the work; `Sweeper` only decides when. Any number of sweepers may share a store.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeVar

from lapse.core.background import Background, Work
from lapse.core.feed import Feed
from lapse.core.lifecycle import Change, ChangeKind, Status
from lapse.store.database import Database
from lapse.store.records import Result
from lapse.store.sessions import Sessions
from lapse.sweep.brake import BrakeNews, Brakes
from lapse.sweep.rules import FEW, BrakeOptions
from lapse.sweep.store import SweepStore
from lapse.telemetry.tracing import traced

T = TypeVar("T")

CHANNEL: Final = "lapse_deadlines"
"""On this channel statements announce how many seconds ahead a near deadline is: one that the
sweepers of other processes would otherwise see too late."""

BATCH: Final = 500
"""How many sessions are changed at once where each has a change of its own."""

BATCH_BESIDE: Final = 200
"""How many sessions of a backlog expire at once beside other work, which waits meanwhile where a
store has one writer: SQLite takes about 2 ms and a wait for the disk."""

BATCH_ALONE: Final = 2000
"""How many expire at once if this process does nothing else."""

_QUIET: Final = timedelta(seconds=1)
"""A process that has published no change for so long does nothing else."""

LONGEST_SLEEP: Final = timedelta(seconds=15)
"""How long a deadline that another process made may go unseen."""

SHORT_SLEEP: Final = timedelta(seconds=1)
"""The longest sleep of a process that does not hear of other processes' new deadlines; a sweep that
finds nothing is cheap."""

_PORTION: Final = 20
"""How many changes are read and published before a pause for other work."""

_PORTION_GAP: Final = timedelta(milliseconds=1)
"""The pause between two portions. Without it the store's threads would starve: an event loop that
is never idle gives up the interpreter only for moments, and takes it back before a waiting thread
wakes up."""

_FULL_BATCH_GAP: Final = timedelta(milliseconds=5)
"""The longest pause between full batches. A random part of it leaves room for other work, and keeps
replicas out of step."""

_MARKED_EVERY: Final = timedelta(seconds=5)
"""A sweeper records at most this often that it works."""

_TIMEOUT: Final = timedelta(seconds=30)
_FIRST_RETRY: Final = timedelta(milliseconds=250)

_NO_NEWS: Final = BrakeNews()

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did, or several: the sum of two reports is the report of both.

    Attributes:
        expired: how many sessions expired.
        purged: how many sessions were purged.
        kept: how many due sessions were kept, because ADK's tables hold them.
        latest: the greatest lateness among the expired sessions.
        duration: how long the work took.
        full: True if a batch was full at the end, so that more may be due.
        braking: how the brake stood at the end.
    """

    expired: int = 0
    purged: int = 0
    kept: int = 0
    latest: timedelta = timedelta(0)
    duration: timedelta = timedelta(0)
    full: bool = False
    braking: BrakeNews = _NO_NEWS

    def __add__(self, later: SweepReport) -> SweepReport:
        return SweepReport(
            expired=self.expired + later.expired,
            purged=self.purged + later.purged,
            kept=self.kept + later.kept,
            latest=max(self.latest, later.latest),
            duration=self.duration + later.duration,
            full=later.full,
            braking=later.braking,
        )

    def counts(self) -> dict[str, int]:
        """Return how many sessions expired, were purged and were kept, by these names."""
        return {"expired": self.expired, "purged": self.purged, "kept": self.kept}

    @property
    def did_something(self) -> bool:
        """Return whether any session changed."""
        return any(self.counts().values())


@traced("sweep", SweepReport.counts)
async def sweep_once(
    store: Database, feed: Feed, *, batch: int | None = None, brakes: Brakes | None = None
) -> SweepReport:
    """Expire and purge at most `batch` due sessions of each kind, and publish the changes.

    If more than FEW sessions are due to expire and every consumer of the feed takes `Expiries`, it
    publishes these in place of a change for each session. Without `batch` it then expires
    BATCH_ALONE sessions, or BATCH_BESIDE if this process serves others, too; of single changes it
    makes BATCH.

    While the brake is set, it does nothing that cannot be undone. A caller that sweeps repeatedly
    passes the same `brakes`, which remember the clock; without them the default limits hold.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    began = time.perf_counter()
    braking = await (brakes or Brakes()).look(store)
    done = SweepReport()
    if braking.due > FEW and feed.takes_many:
        done = await _expire_backlog(store, feed, batch or _batch_beside(feed))
    # Expiry first: with a horizon of zero, what it expires is purged by the same sweep.
    sessions = Sessions(store)
    steps = [sessions.purge_due] if done.full else [sessions.expire_due, sessions.purge_due]
    for step in steps:
        swept = await _one_by_one(step, feed, batch or BATCH)
        done = replace(done + swept, full=done.full or swept.full)
    duration = timedelta(seconds=time.perf_counter() - began)
    return replace(done, duration=duration, braking=braking)


def _batch_beside(feed: Feed) -> int:
    """Return how much of a backlog to expire at once, while others may wait for the store."""
    return BATCH_ALONE if feed.quiet_for > _QUIET.total_seconds() else BATCH_BESIDE


async def _expire_backlog(store: Database, feed: Feed, limit: int) -> SweepReport:
    of_apps = await SweepStore(store).expire_backlog(limit)
    for expiries in of_apps:
        feed.publish_many(expiries)
    expired = sum(map(len, of_apps))
    latest = max((expiries.latest for expiries in of_apps), default=timedelta(0))
    return SweepReport(expired=expired, latest=latest, full=expired >= limit)


async def _one_by_one(
    step: Callable[[int], Awaitable[Result[int]]], feed: Feed, limit: int
) -> SweepReport:
    """Change at most `limit` sessions, and publish a change for each."""
    swept = await step(limit)
    counts, latest = Counter[ChangeKind](), timedelta(0)
    for start in range(0, swept.value, _PORTION):
        changes = swept.changes[start : start + _PORTION]
        if start:
            await asyncio.sleep(_PORTION_GAP.total_seconds())
        feed.publish(changes, swept=True)
        counts.update(change.kind for change in changes)
        latest = max(latest, *(change.lateness or timedelta(0) for change in changes))
    return SweepReport(
        expired=counts[ChangeKind.EXPIRED],
        purged=counts[ChangeKind.PURGED],
        kept=counts[ChangeKind.KEPT],
        latest=latest,
        full=swept.value >= limit,
    )


def _tell(listener: Callable[[T], None], news: T) -> None:
    """Call a listener; its failure is logged and does not stop the sweeper."""
    try:
        listener(news)
    except Exception:  # noqa: BLE001 - a listener's fault is not the sweeper's
        _log.exception("a listener of the sweeper failed")


class Sweeper(Work):
    """Sweeps a store until it is stopped: at each deadline, and at least every `longest_sleep`.

    It survives outages of the store: it logs once when one begins and once when it ends, and
    retries with growing, jittered pauses meanwhile.

    Args:
        store: the store to sweep.
        feed: where changes are published; a nearer deadline that is published wakes the sweeper.
        on_report: called with the report of every sweep.
        on_fault: called with every fault of the store.
        brakes: when a brake is set.
        longest_sleep: the longest pause between two sweeps.
    """

    def __init__(
        self,
        store: Database,
        feed: Feed,
        *,
        on_report: Callable[[SweepReport], None] | None = None,
        on_fault: Callable[[Exception], None] | None = None,
        brakes: BrakeOptions = BrakeOptions(),
        longest_sleep: timedelta = LONGEST_SLEEP,
    ) -> None:
        self._store = store
        self._feed = feed
        self._on_report = on_report or (lambda _: None)
        self._on_fault = on_fault or (lambda _: None)
        self._longest_sleep = longest_sleep
        self._brakes = Brakes(brakes)
        self._marked_at = -math.inf
        self._work = Background(
            "the sweeper",
            self._step,
            timeout=_TIMEOUT,
            first_retry=_FIRST_RETRY,
            longest_retry=longest_sleep,
            within=self._hearing,
            on_fault=lambda error: _tell(self._on_fault, error),
        )

    @property
    def longest_sleep(self) -> timedelta:
        """Return the longest pause between two sweeps, also after a failure."""
        return self._longest_sleep

    @longest_sleep.setter
    def longest_sleep(self, pause: timedelta) -> None:
        self._longest_sleep = self._work.longest_retry = pause

    @property
    def is_alive(self) -> bool:
        """Return whether the loop runs and has swept not too long ago; a failure is no sweep."""
        return self._work.is_running and self._work.idle < 2 * self._longest_sleep + _TIMEOUT

    async def start(self) -> None:
        """Start to sweep."""
        await self._work.start()

    async def stop(self) -> None:
        """Stop, and return once stopped; the batch in hand is finished if the store answers."""
        await self._work.stop()

    async def sweep(self) -> SweepReport:
        """Sweep one batch, whether the loop runs or not, and call `on_report` with its report.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        report = await sweep_once(self._store, self._feed, brakes=self._brakes)
        _tell(self._on_report, report)
        return report

    @asynccontextmanager
    async def _hearing(self) -> AsyncIterator[None]:
        """Hear of nearer deadlines from this process and from others, inside the context."""
        unsubscribe = self._feed.subscribe(self._notice, of_many=lambda _: None)
        try:
            async with self._store.listen(CHANNEL, self._hear):
                yield
        finally:
            unsubscribe()

    def _hear(self, text: str) -> None:
        """Wake for a deadline that another process made; `text` is how many seconds it is ahead."""
        try:
            self._work.wake(timedelta(seconds=float(text)))
        except (ValueError, OverflowError):
            _log.debug("a text is no deadline: another program uses the channel %s", CHANNEL)

    async def _step(self) -> timedelta:
        """Sweep once and return the pause until the next sweep."""
        report = await self.sweep()
        await self._mark_swept()
        if report.full:
            return _FULL_BATCH_GAP * random.random()
        ahead = await Sessions(self._store).time_to_next()
        return self._longest_sleep if ahead is None else min(ahead, self._longest_sleep)

    async def _mark_swept(self) -> None:
        """Record that this sweeper works, unless it did so a moment ago."""
        now = time.monotonic()
        if now - self._marked_at >= _MARKED_EVERY.total_seconds():
            await SweepStore(self._store).mark_swept()
            self._marked_at = now

    def _notice(self, change: Change) -> None:
        """Wake at a deadline of this process; the store decides then whether it is due."""
        record = change.record
        if record.status is Status.WAITING and record.expires_at is not None:
            self._work.wake(record.expires_at - change.at)
