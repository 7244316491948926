"""Adopting a database's empty sessions batch by batch, and putting them back."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from lapse.adoption.store import AdoptionStore, Batch, Selection
from lapse.core.errors import NoSuchSessionError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from lapse.store.database import Database

BATCH: Final = 500
"""Sessions that one transaction examines: nobody waits longer than for these."""


_FIRST_ANALYZE: Final = 500


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an adoption or an undo is.

    `examined` counts the sessions looked at so far, `waiting` and `expired` what became of
    those that were taken.
    """

    examined: int = 0
    waiting: int = 0
    expired: int = 0

    @property
    def adopted(self) -> int:
        """Return how many sessions were taken."""
        return self.waiting + self.expired


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo did.

    Attributes:
        put_back: sessions that are in ADK's tables again.
        in_the_way: left in the lobby, as ADK has a session of the same key.
        remaining: still in the lobby for another reason: just being written, or past restoring.
        gone: no longer there to be put back: used, deleted or purged since.
    """

    put_back: int
    in_the_way: int
    remaining: int
    gone: int


def new_run() -> str:
    """Return the id of a run: when it began, and something that no other one has."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Throttle:
    """Keeps work under a rate; None lets it go as fast as it can."""

    def __init__(self, per_second: float | None) -> None:
        self._per_second = per_second
        self._free_at = time.monotonic()

    async def spent(self, count: int) -> None:
        """Wait until work of this size fits under the rate."""
        if self._per_second is not None:
            self._free_at = max(self._free_at, time.monotonic()) + count / self._per_second
            await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
        else:
            await asyncio.sleep(0)


class Statistics:
    """Keeps the planner's statistics of the lobby up with what is adopted."""

    def __init__(self, database: Database) -> None:
        self._store = AdoptionStore(database)
        self._adopted = 0
        self._analyze_at = _FIRST_ANALYZE

    async def grown(self, sessions: int) -> None:
        """Note that the lobby has grown; have it analyzed each time it is four times as large."""
        self._adopted += sessions
        if self._adopted >= self._analyze_at:
            self._analyze_at = 4 * self._adopted
            await self._store.analyze()


async def adopt(
    database: Database,
    selection: Selection,
    *,
    run: str,
    ttl: timedelta,
    feed: Feed | None = None,
    rate: float | None = None,
    batch: int = BATCH,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Adopt everything selected, in batches, each a transaction; return what was done.

    Stopped at any point, what was committed stays and can be undone; the same call goes on.

    Args:
        database: where.
        selection: what to take.
        run: the id under which it can be undone.
        ttl: the TTL of what is taken.
        feed: where its changes are published.
        rate: at most so many sessions taken in a second.
        batch: sessions examined in one transaction.
        on_progress: called after each batch.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    store, throttle, statistics = AdoptionStore(database), Throttle(rate), Statistics(database)
    done = Progress()
    after = None if selection.app_name is None else SessionKey(selection.app_name, "", "")
    while True:
        part = await store.adopt(Batch(run, selection, ttl, after, batch))
        if feed is not None:
            feed.publish(part.changes)
        await statistics.grown(len(part.changes))
        expired = sum(change.record.status is Status.EXPIRED for change in part.changes)
        done = Progress(
            done.examined + part.value.sessions,
            done.waiting + len(part.changes) - expired,
            done.expired + expired,
        )
        on_progress(done)
        after = part.value.last
        if after is None or selection.app_name not in {None, after.app_name}:
            return done
        await throttle.spent(len(part.changes))


async def undo(
    database: Database,
    run: str,
    *,
    rate: float | None = None,
    batch: int = BATCH,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Undone:
    """Put back what one run of adoption took, in batches; the same call goes on when stopped.

    Raises:
        NoSuchSessionError: there was no such run.
        StoreUnavailableError: the store does not answer.
    """
    store = AdoptionStore(database)
    known = {adoption.run: adoption for adoption in await store.adoptions()}
    if run not in known:
        raise NoSuchSessionError(
            f"there is no run {run!r} of adoption in this database; it has "
            + (", ".join(known) or "none")
        )
    throttle = Throttle(rate)
    put_back = in_the_way = 0
    after: SessionKey | None = None
    while True:
        part = await store.put_back(run, after=after, limit=batch)
        put_back, in_the_way = put_back + part.put_back, in_the_way + part.taken - part.put_back
        on_progress(put_back)
        after = part.last
        if after is None:
            break
        await throttle.spent(part.taken)
    left = {adoption.run: adoption for adoption in await store.adoptions()}[run].remaining
    before = known[run]
    return Undone(
        put_back,
        in_the_way,
        max(0, left - in_the_way),
        max(0, before.sessions - put_back - left),
    )
