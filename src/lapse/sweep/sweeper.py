"""The sweep: due waiting sessions expire, due expired ones are purged.

`sweep_once` is the work; `Sweeper` only decides when. Any number of sweepers may share a store.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final, Self, TypeVar

from lapse.core.background import Background
from lapse.core.feed import Feed
from lapse.core.lifecycle import Change, ChangeKind, Status
from lapse.store.database import Database
from lapse.store.sessions import Sessions
from lapse.sweep.brake import BrakeNews, Brakes
from lapse.sweep.rules import BrakeOptions
from lapse.sweep.store import SweepStore
from lapse.telemetry.tracing import traced

T = TypeVar("T")

CHANNEL: Final = "lapse_deadlines"
"""Where statements tell the seconds to a deadline nearer than other processes' sweepers look."""

BATCH: Final = 500
LONGEST_SLEEP: Final = timedelta(seconds=15)
"""How long a deadline made by another process may go unseen."""

_PORTION: Final = 20
"""Changes that are read and published before others have their turn."""

_BREATH: Final = timedelta(milliseconds=1)
"""That turn. With none at all a store's thread would starve: a loop that is never idle lets go of
the interpreter for moments only, and has it back before a thread that waits for it wakes up."""

_FULL_BATCH_GAP: Final = timedelta(milliseconds=5)
"""At most this long between full batches, at random: room for others, replicas out of step."""

_MARKED_EVERY: Final = timedelta(seconds=5)
"""How often a sweeper notes that it works, at most."""

_TIMEOUT: Final = timedelta(seconds=30)
_FIRST_RETRY: Final = timedelta(milliseconds=250)

_NO_NEWS: Final = BrakeNews()

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did.

    `full` tells that a batch came back full: more is due already. `latest` is the greatest
    lateness among the expired. `braking` tells what held it, if anything did.
    """

    expired: int
    purged: int
    kept: int
    latest: timedelta
    duration: timedelta
    full: bool
    braking: BrakeNews = _NO_NEWS

    @property
    def did_something(self) -> bool:
        """Return whether any session changed."""
        return bool(self.expired or self.purged or self.kept)


def _noted(report: SweepReport) -> dict[str, int]:
    return {"expired": report.expired, "purged": report.purged, "kept": report.kept}


@traced("sweep", _noted)
async def sweep_once(
    store: Database, feed: Feed, *, batch: int = BATCH, brakes: Brakes | None = None
) -> SweepReport:
    """Expire and purge at most `batch` due sessions of each kind, and publish the changes.

    Nothing that cannot be undone is done while the brake is set. Whoever sweeps again and again
    passes the same `brakes`, which remember; without them the usual limits hold.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    began = time.perf_counter()
    braking = await (brakes or Brakes()).look(store)
    counts, latest, full = Counter[ChangeKind](), timedelta(0), False
    # Expiry first: with a horizon of zero, what it expires is purged by the same sweep.
    sessions = Sessions(store)
    for step in (sessions.expire_due, sessions.purge_due):
        swept = await step(batch)
        full = full or swept.value >= batch
        for start in range(0, swept.value, _PORTION):
            changes = swept.changes[start : start + _PORTION]
            if start:
                await asyncio.sleep(_BREATH.total_seconds())
            feed.publish(changes)
            counts.update(change.kind for change in changes)
            latest = max(latest, *(change.lateness or timedelta(0) for change in changes))
    return SweepReport(
        expired=counts[ChangeKind.EXPIRED],
        purged=counts[ChangeKind.PURGED],
        kept=counts[ChangeKind.KEPT],
        latest=latest,
        duration=timedelta(seconds=time.perf_counter() - began),
        full=full,
        braking=braking,
    )


def _tell(listener: Callable[[T], None], news: T) -> None:
    """Call a listener; one that fails is reported and does not stop the sweeper."""
    try:
        listener(news)
    except Exception:  # noqa: BLE001 - a listener's fault is not the sweeper's
        _log.exception("a listener of the sweeper failed")


class Sweeper:
    """Sweeps a store until it is stopped: at each deadline, and at least every `longest_sleep`.

    It outlives outages of the store: it says so once when one begins and once when it ends,
    and retries with growing, jittered pauses meanwhile.

    `start` and `stop` may be called in any order and any number of times; `stop` returns when
    the work has stopped. It is an async context manager, too.

    Args:
        store: what to sweep.
        feed: where changes are published; nearer deadlines published there wake the sweeper.
        on_report: called with the report of every sweep.
        on_fault: called with every fault of the store.
        brakes: when it stops before what cannot be undone.
        longest_sleep: see above.
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
        """Return how long a deadline that nobody tells of may go unseen."""
        return self._longest_sleep

    @longest_sleep.setter
    def longest_sleep(self, pause: timedelta) -> None:
        self._longest_sleep = self._work.longest_retry = pause

    @property
    def is_alive(self) -> bool:
        """Return whether the loop runs and has swept, or tried to, not too long ago."""
        return self._work.is_running and self._work.idle < 2 * self._longest_sleep + _TIMEOUT

    async def start(self) -> None:
        """Begin to sweep; nothing happens when it has begun."""
        await self._work.start()

    async def stop(self) -> None:
        """Stop and return once stopped; nothing happens when it is not running.

        The batch in hand is finished, unless the store keeps it waiting.
        """
        await self._work.stop()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    async def sweep(self) -> SweepReport:
        """Sweep one batch, whether the loop runs or not, and report it to whoever listens.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        report = await sweep_once(self._store, self._feed, brakes=self._brakes)
        _tell(self._on_report, report)
        return report

    @asynccontextmanager
    async def _hearing(self) -> AsyncIterator[None]:
        """Hear of nearer deadlines, from this process and from others."""
        unsubscribe = self._feed.subscribe(self._notice)
        try:
            async with self._store.listen(CHANNEL, self._hear):
                yield
        finally:
            unsubscribe()

    def _hear(self, text: str) -> None:
        """Wake for a deadline that another process made, so many seconds ahead."""
        try:
            self._work.wake(timedelta(seconds=float(text)))
        except (ValueError, OverflowError):
            _log.debug("not a deadline: somebody else uses our channel %s", CHANNEL)

    async def _step(self) -> timedelta:
        """Sweep once and return how long there is nothing to do."""
        report = await self.sweep()
        await self._keep_books()
        if report.full:
            return _FULL_BATCH_GAP * random.random()
        ahead = await Sessions(self._store).time_to_next()
        return self._longest_sleep if ahead is None else min(ahead, self._longest_sleep)

    async def _keep_books(self) -> None:
        """Note that this sweeper works, when it is time."""
        now = time.monotonic()
        if now - self._marked_at >= _MARKED_EVERY.total_seconds():
            await SweepStore(self._store).mark_swept()
            self._marked_at = now

    def _notice(self, change: Change) -> None:
        """Plan for a deadline that is nearer than the planned one; the store decides at it."""
        record = change.record
        if record.status is Status.WAITING and record.expires_at is not None:
            self._work.wake(record.expires_at - change.at)
