"""Purging archived sessions one by one, after what must be done before; and telling of archives."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from lapse.core.errors import LapseError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change, ChangeKind, Lifecycle
from lapse.retention.archive import ArchiveStore, Taken
from lapse.retention.hooks import HookCalls, Outcome, RetentionHooks
from lapse.store.archiving import Packed
from lapse.store.database import Database

AT_ONCE: Final = 16
"""So many sessions are purged at a time, if something must be done before."""

FIRST_PAUSE: Final = timedelta(seconds=30)
LONGEST_PAUSE: Final = timedelta(hours=6)
"""How long a purge is put off; each pause is twice as long as the one before."""

_SPARE: Final = timedelta(minutes=1)
"""A session is taken for so much longer than its hooks may last."""

_MOST_WAITING: Final = 10_000
"""So many archived sessions wait for their hook; the hook is not called for more."""

_MOST_FAILED: Final = 10_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ArchivedSession:
    """An archived session that is about to be purged, with all that ADK's tables held of it."""

    key: SessionKey
    packed: Packed

    @property
    def event_ids(self) -> Sequence[str]:
        """Return the ids of its events."""
        return [event[0] for event in self.packed.events if event[0] is not None]


@dataclass(frozen=True, slots=True)
class Step:
    """A step that must succeed before a purge.

    Attributes:
        name: it is counted by this name.
        do: does it.
    """

    name: str
    do: Callable[[ArchivedSession], Awaitable[object]]


def _no_steps() -> Sequence[Step]:
    return ()


def _never() -> bool:
    return False


def _unheard() -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True)
class Beside:
    """The work beside archiving and purging.

    Attributes:
        hooks: the operator's.
        steps: returns what must be done before a purge, in order; asked at each sweep.
        forgets: returns whether the memories of a purged session are to be deleted; asked at each
            sweep.
        on_owed: called when a purge has written into the outbox of memory.
    """

    hooks: RetentionHooks = field(default_factory=RetentionHooks)
    steps: Callable[[], Sequence[Step]] = _no_steps
    forgets: Callable[[], bool] = _never
    on_owed: Callable[[], None] = _unheard


class HookedPurges:
    """Awaits hooks: before each purge, and after each archive. Its tasks end with `owned`.

    A session is taken for some time before its steps, so that no other process does the same.
    Whether it is still due is checked again when it is purged. If a step fails, that session is
    taken again after a growing pause, and others are not held up. If the process dies, the time
    runs out.

    Args:
        database: the store.
        feed: receives the purges.
        beside: the hooks and the steps.
        on_room: called when a purge has ended and more may be due.
    """

    def __init__(
        self, database: Database, feed: Feed, beside: Beside, on_room: Callable[[], None]
    ) -> None:
        self.calls = HookCalls()
        self.beside = beside
        self._store = ArchiveStore(database)
        self._feed = feed
        self._on_room = on_room
        self._tasks = set[asyncio.Task[None]]()
        self._tellers = set[asyncio.Task[None]]()
        self._untold = deque[Lifecycle]()
        self._failures = dict[SessionKey, int]()
        self._was_full = False

    @asynccontextmanager
    async def owned(self) -> AsyncIterator[None]:
        """Cancel at the end of the block what was begun inside, and wait until it has ended."""
        # What was left by an earlier event loop, or by the process that this one was forked from.
        self._tasks.clear()
        self._tellers.clear()
        self.calls.begin()
        try:
            yield
        finally:
            self._untold.clear()
            tasks = [*self._tasks, *self._tellers]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.calls.leave()

    # After an archive.

    def archived(self, changes: Iterable[Change]) -> None:
        """Call the hook `on_archive` soon for each session that was archived."""
        if self.beside.hooks.on_archive is None:
            return
        for change in changes:
            if change.kind is not ChangeKind.ARCHIVED:
                continue
            if len(self._untold) >= _MOST_WAITING:
                key, why = change.record.key, "too many others wait"
                self.calls.count("on_archive", Outcome.DROPPED, key, why)
            else:
                self._untold.append(change.record)
        while len(self._tellers) < min(AT_ONCE, len(self._untold)):
            task = asyncio.create_task(self._tell())
            self._tellers.add(task)
            task.add_done_callback(self._tellers.discard)

    async def _tell(self) -> None:
        hooks = self.beside.hooks
        hook = hooks.on_archive
        assert hook is not None
        while self._untold:
            record = self._untold.popleft()
            await self.calls.call("on_archive", record.key, partial(hook, record), hooks.timeout)

    # Before a purge.

    async def begin(self, steps: Sequence[Step], *, forgets: bool = False) -> None:
        """Take as many due sessions as there is room for, and begin their steps.

        If it `forgets`, the purge of a session also writes its memories into the outbox of memory.
        """
        room = AT_ONCE - len(self._tasks)
        if room <= 0:
            self._was_full = True
            return
        lease = len(steps) * self.beside.hooks.timeout + _SPARE
        taken = await self._store.take_to_purge(room, lease=lease)
        self._was_full = len(taken) == room
        for one in taken:
            task = asyncio.create_task(self._purge(one, steps, forgets=forgets))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._was_full and len(self._tasks) <= AT_ONCE // 2:
            self._was_full = False
            self._on_room()

    async def _purge(self, taken: Taken, steps: Sequence[Step], *, forgets: bool) -> None:
        key = taken.key
        try:
            packed = await self._store.archived_content(taken)
            if packed is None:
                return  # it was restored or deleted meanwhile
            session = ArchivedSession(key, packed)
            for step in steps:
                do = partial(step.do, session)
                if not await self.calls.call(step.name, key, do, self.beside.hooks.timeout):
                    await self._store.postpone_purge(taken, self._pause_of(key))
                    return
            done = await self._store.purge_taken(taken, session.event_ids if forgets else ())
            self._failures.pop(key, None)
            self._feed.publish(done.changes, swept=True)
            if done.value and forgets:
                self.beside.on_owed()
        except LapseError as error:
            # It is taken again when its time runs out.
            _log.warning("a purge failed: %s", error, extra={"session": key.short})
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            told = type(error).__name__  # its text may hold content
            _log.error("a purge failed: %s", told, extra={"session": key.short})

    def _pause_of(self, key: SessionKey) -> timedelta:
        failures = self._failures.pop(key, 0)
        self._failures[key] = failures + 1
        if len(self._failures) > _MOST_FAILED:
            del self._failures[next(iter(self._failures))]
        return min(FIRST_PAUSE * (1 << min(failures, 20)), LONGEST_PAUSE)
