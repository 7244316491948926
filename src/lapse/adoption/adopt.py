"""Adopts the empty sessions of a database in batches, and puts them back."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from lapse.adoption.store import AdoptionStore, Batch, Progress, Selection
from lapse.core.errors import NoSuchSessionError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.messages import UsedByRule
from lapse.store.database import Database

BATCH: Final = 500
"""One transaction examines this many sessions, so other writers wait no longer than for these."""

_FIRST_ANALYZE: Final = 500
"""The planner's statistics are brought up to date first after this many adopted sessions."""


def new_run() -> str:
    """Return a new id for a run of adoption: the time in UTC and six random digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Throttle:
    """Limits work to a number of sessions per second; None does not limit it."""

    def __init__(self, per_second: float | None) -> None:
        self._per_second = per_second
        self._free_at = time.monotonic()

    async def spent(self, count: int) -> None:
        """Wait as long as `count` sessions take at this rate; yield to the loop without one."""
        if self._per_second is not None:
            self._free_at = max(self._free_at, time.monotonic()) + count / self._per_second
            await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
        else:
            await asyncio.sleep(0)


class Statistics:
    """Has the database analyze the lobby as adoption makes it grow."""

    def __init__(self, database: Database) -> None:
        self._store = AdoptionStore(database)
        self._adopted = 0
        self._analyze_at = _FIRST_ANALYZE

    async def grown(self, sessions: int) -> None:
        """Count adopted sessions; analyze the lobby each time their number has grown fourfold."""
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
    used_by: UsedByRule = UsedByRule(),
    feed: Feed | None = None,
    rate: float | None = None,
    batch: int = BATCH,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Adopt all selected sessions in batches, and return the totals of this call.

    Each batch is one transaction. If the call is interrupted, the batches before stay adopted; the
    same call continues, and `undo` puts them back.

    Args:
        database: the database with ADK's tables and the lobby.
        selection: the sessions to adopt.
        run: the id of the run, which `undo` takes; `new_run` makes one.
        ttl: the TTL of the adopted sessions, counted from their creation.
        used_by: whose message makes the adopted sessions used.
        feed: receives the changes; None: nobody hears of them.
        rate: the largest number of sessions adopted per second; None: no limit.
        batch: the number of sessions examined in one transaction.
        on_progress: called after each batch with the totals so far.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    store, throttle, statistics = AdoptionStore(database), Throttle(rate), Statistics(database)
    done = Progress()
    after = None if selection.app_name is None else SessionKey(selection.app_name, "", "")
    while True:
        part = await store.adopt(Batch(run, selection, ttl, after, batch, used_by))
        if feed is not None:
            feed.publish(part.changes)
        await statistics.grown(part.value.adopted)
        done += part.value
        on_progress(done)
        after = done.last
        if after is None or selection.app_name not in {None, after.app_name}:
            return done
        await throttle.spent(part.value.adopted)


async def undo(
    database: Database,
    run: str,
    *,
    rate: float | None = None,
    batch: int = BATCH,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Put the sessions of one run of adoption back in batches, and return the totals.

    Each batch is one transaction. If the call is interrupted, the batches before stay put back, and
    the same call continues. Sessions that were used, deleted or purged since are not put back.

    Args:
        database: the database with ADK's tables and the lobby.
        run: the id of the run.
        rate: the largest number of sessions put back per second; None: no limit.
        batch: the largest number of sessions put back in one transaction.
        on_progress: called after each batch with the totals so far.

    Raises:
        NoSuchSessionError: this database has no such run.
        StoreUnavailableError: the store does not answer.
    """
    store = AdoptionStore(database)
    known = {adoption.run: adoption for adoption in await store.adoptions()}
    if run not in known:
        raise NoSuchSessionError(
            f"there is no run {run!r} of adoption in this database; give one of: "
            + (", ".join(known) or "none")
        )
    throttle, done = Throttle(rate), Progress()
    while True:
        part = await store.put_back(run, after=done.last, limit=batch)
        done += part
        on_progress(done)
        if done.last is None:
            break
        await throttle.spent(part.examined)
    left = {adoption.run: adoption for adoption in await store.adoptions()}[run].remaining
    return replace(
        done,
        remaining=max(0, left - done.in_the_way),
        gone=max(0, known[run].sessions - done.put_back - left),
    )
