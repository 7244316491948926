"""The watcher: it reads watched sessions when something may have happened, and tells browsers.

What wakes it (a planned instant, a change in this process, another replica's announcement, the
heartbeat) only says which sessions to read. What is told comes from the store. One read serves all
sessions that wait for one, and there is one read at a time, so that a browser never hears of a
later state before an earlier one.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

from lapse.core.background import FOREVER, Background, Work
from lapse.core.errors import TooManyStreamsError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change, ChangeKind, Expiries, Lifecycle
from lapse.notices.announcements import Announcements
from lapse.notices.rules import Known, Notice, NoticeKind, WatchOptions, greeting, news, next_moment
from lapse.notices.store import NoticeStore, Snapshot
from lapse.store.database import Database

_GATHER: Final = timedelta(milliseconds=20)
"""How long a read waits for more sessions, so that many deadlines share one read."""

_ANNOUNCE_GAP: Final = timedelta(milliseconds=50)
"""The shortest time between two announcements, so that many changes share one."""

_TIMEOUT: Final = timedelta(seconds=30)
_FIRST_RETRY: Final = timedelta(milliseconds=250)

_BEATS_TOGETHER: Final = 50
"""How many streams get their heartbeat before a pause for other work."""

_MOST_STALE: Final = 1000
"""How many outdated instants are kept until they are removed."""

_ANNOUNCED: Final = frozenset(
    {
        ChangeKind.USED,
        ChangeKind.EXTENDED,
        ChangeKind.AMENDED,
        ChangeKind.RESURRECTED,
        ChangeKind.DELETED,
        ChangeKind.ARCHIVING,
        ChangeKind.ARCHIVED,
        ChangeKind.RESTORED,
    }
)
"""The changes that other replicas cannot foresee; deadlines they know themselves."""

_log = logging.getLogger(__name__)


class Audience(Protocol):
    """The receiver of one session's notices; its methods neither block nor fail."""

    def hear(self, notices: Sequence[Notice]) -> None:
        """Take notices, in order; after DELETED there are no more."""
        ...

    def beat(self) -> None:
        """Send a heartbeat."""
        ...

    def end(self) -> None:
        """End the stream: the session is gone, or the watcher stops."""
        ...


class _Watch:
    """One audience, and what it knows."""

    __slots__ = ("audience", "greeted", "known")

    def __init__(self, audience: Audience, known: Known | None) -> None:
        self.audience = audience
        self.known = known
        self.greeted = False


class _Session:
    """One watched session: its watches, its record as last read, and when it is read next."""

    __slots__ = ("last", "looks_at", "watches")

    def __init__(self) -> None:
        self.watches: tuple[_Watch, ...] = ()
        self.last: Lifecycle | None = None
        self.looks_at: float | None = None


class Watcher(Work):
    """Watches sessions of a store for browsers, on one event loop, between start and stop.

    Args:
        database: where the sessions live.
        feed: where the changes of this process are published.
        options: bounds and intervals.

    Attributes:
        on_streams: what is called with 1 when a stream begins, and with -1 when one ends.
    """

    def __init__(
        self, database: Database, feed: Feed, options: WatchOptions = WatchOptions()
    ) -> None:
        self.options = options
        self.on_streams: list[Callable[[int], None]] = []
        self._store = NoticeStore(database)
        self._announcements = Announcements(database)
        self._feed = feed
        self._sessions: dict[SessionKey, _Session] = {}
        self._digests: dict[str, SessionKey] = {}
        self._streams = Counter[str]()
        self._instants: list[tuple[float, SessionKey]] = []
        self._to_look_at: set[SessionKey] = set()
        self._to_announce: set[SessionKey] = set()
        self._announced_at = -math.inf
        self._looking = Background(
            "the watcher of sessions",
            self._look,
            timeout=_TIMEOUT,
            first_retry=_FIRST_RETRY,
            longest_retry=options.heartbeat,
            within=lambda: self._announcements.listen(self._hear),
        )
        self._beating = Background("the heartbeat of notices", self._beat)
        self._announcing = Background("the announcer of changes", self._announce)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._ending = False

    def watch(
        self, key: SessionKey, audience: Audience, known: Known | None = None
    ) -> Callable[[], None]:
        """Tell an audience about a session, its record first; return a function that ends this.

        `known` is what the audience knows from an earlier stream, of any replica.

        Raises:
            TooManyStreamsError: the session or its user has too many streams already.
        """
        user = key.user_id
        session = self._sessions.get(key)
        self._check_bounds(0 if session is None else len(session.watches), self._streams[user])
        if session is None:
            session = self._sessions[key] = _Session()
            self._digests[key.digest] = key
        watch = _Watch(audience, known)
        session.watches = (*session.watches, watch)
        self._streams[user] += 1
        self._count(1)
        if self._ending:
            audience.end()
        self._look_at((key,))
        return partial(self._unwatch, key, watch)

    def _unwatch(self, key: SessionKey, watch: _Watch) -> None:
        session = self._sessions.get(key)
        if session is None or watch not in session.watches:
            return
        session.watches = tuple(kept for kept in session.watches if kept is not watch)
        user = key.user_id
        self._streams[user] -= 1
        self._count(-1)
        if not self._streams[user]:
            del self._streams[user]
        if not session.watches:
            del self._sessions[key], self._digests[key.digest]

    def _count(self, number: int) -> None:
        for hear in self.on_streams:
            hear(number)

    def end(self) -> None:
        """End every stream, also those that come later: the process is about to stop."""
        self._ending = True
        for session in self._sessions.values():
            for watch in session.watches:
                watch.audience.end()

    async def start(self) -> None:
        """Start to watch, on the running event loop."""
        self._unsubscribe()
        self._loop = asyncio.get_running_loop()
        self._ending = False
        self._unsubscribe = self._feed.subscribe(self._notice, of_many=self._notice_many)
        for work in (self._looking, self._beating, self._announcing):
            await work.start()

    async def stop(self) -> None:
        """End every stream, stop, and return once stopped."""
        self.end()
        self._unsubscribe()
        works = (self._looking, self._beating, self._announcing)
        await asyncio.gather(*(work.stop() for work in works))

    def _check_bounds(self, of_session: int, of_user: int) -> None:
        limits = self.options
        if of_session >= limits.per_session:
            raise TooManyStreamsError(
                f"this session is watched by {of_session} streams already, and more than "
                f"{limits.per_session} are not allowed; close one first"
            )
        if of_user >= limits.per_user:
            raise TooManyStreamsError(
                f"this user has {of_user} streams open already, and more than "
                f"{limits.per_user} are not allowed; close one first"
            )

    # Which sessions to read.

    def _look_at(self, keys: Collection[SessionKey]) -> None:
        self._to_look_at.update(key for key in keys if key in self._sessions)
        if self._to_look_at:
            self._looking.wake(_GATHER)

    def _notice(self, change: Change) -> None:
        """Read a session that this process changed, and announce it to other replicas."""
        key = change.record.key
        announced = change.kind in _ANNOUNCED
        if self._loop is not None and (announced or key in self._sessions):
            # A consumer runs on the publisher's thread.
            with suppress(RuntimeError):  # the loop was closed, and its streams are gone
                self._loop.call_soon_threadsafe(self._noticed, key, announced)

    def _notice_many(self, expiries: Expiries) -> None:
        """Read the watched ones of the sessions that this process expired."""
        if self._loop is not None and self._sessions:
            with suppress(RuntimeError):  # as above
                self._loop.call_soon_threadsafe(self._look_at, list(expiries.keys))

    def _noticed(self, key: SessionKey, announced: bool) -> None:  # noqa: FBT001 - of a callback
        if announced:
            self._to_announce.add(key)
            gap = _ANNOUNCE_GAP.total_seconds() - (time.monotonic() - self._announced_at)
            self._announcing.wake(timedelta(seconds=max(0.0, gap)))
        self._look_at((key,))

    def _hear(self, digests: Collection[str]) -> None:
        self._look_at([self._digests[digest] for digest in digests if digest in self._digests])

    async def _beat(self) -> timedelta:
        """Read every session, and send every stream a heartbeat, once in a heartbeat's time."""
        # Not sessions that Lapse did not create: they have no deadline, and are costly to read.
        self._look_at(
            [k for k, s in self._sessions.items() if s.last is None or s.last.ttl is not None]
        )
        watches = [watch for s in self._sessions.values() for watch in s.watches]
        for number, watch in enumerate(watches, 1):
            watch.audience.beat()
            if not number % _BEATS_TOGETHER:
                await asyncio.sleep(0)
        return self.options.heartbeat

    async def _announce(self) -> timedelta:
        """Tell other replicas which sessions changed."""
        keys, self._to_announce = self._to_announce, set()
        if keys:
            try:
                async with asyncio.timeout(_TIMEOUT.total_seconds()):
                    await self._announcements.announce(keys)
            except Exception as error:  # noqa: BLE001 - others look for themselves, too
                _log.debug("changes were not announced: %s", error)
            self._announced_at = time.monotonic()
        return FOREVER

    # Reading them, and telling.

    async def _look(self) -> timedelta:
        """Read the sessions that wait for it, tell what is new, and return when to read again."""
        self._take_due()
        # Sessions that nobody watches any more are not read.
        self._to_look_at.intersection_update(self._sessions)
        keys, self._to_look_at = self._to_look_at, set()
        if keys:
            asked_at = time.monotonic()
            try:
                snapshot = await self._store.records(keys)
            except BaseException:
                self._to_look_at |= keys
                raise
            self._tell(keys, snapshot, asked_at)
        if not self._instants:
            return FOREVER
        ahead = max(0.0, self._instants[0][0] - time.monotonic())
        return timedelta(seconds=ahead) + _GATHER

    def _take_due(self) -> None:
        now = time.monotonic()
        while self._instants and self._instants[0][0] <= now:
            when, key = heapq.heappop(self._instants)
            session = self._sessions.get(key)
            if session is not None and session.looks_at == when:
                session.looks_at = None
                self._to_look_at.add(key)

    def _tell(self, keys: Collection[SessionKey], snapshot: Snapshot, asked_at: float) -> None:
        for key in keys:
            session = self._sessions.get(key)
            if session is None:
                continue
            record = snapshot.records.get(key)
            if record is None:
                self._tell_gone(session, snapshot)
                continue
            session.last = record
            for watch in session.watches:
                self._tell_one(watch, record, snapshot)
            self._plan(key, session, record, snapshot, asked_at)

    def _tell_one(self, watch: _Watch, record: Lifecycle, snapshot: Snapshot) -> None:
        before = self._warn_before
        if not watch.greeted or watch.known is None:
            notices = greeting(watch.known, record, snapshot.at, before)
            watch.greeted = True
        else:
            notices = news(watch.known, record, snapshot.at, before)
        if notices:
            watch.known = notices[-1].known
            try:
                watch.audience.hear(notices)
            except Exception:  # noqa: BLE001 - one stream's fault is not the others'
                _log.exception("a stream of notices failed")

    def _tell_gone(self, session: _Session, snapshot: Snapshot) -> None:
        for watch in session.watches:
            last = session.last
            if last is not None and watch.known is not None:
                watch.audience.hear([Notice(NoticeKind.DELETED, last, snapshot.at, watch.known)])
            watch.audience.end()

    def _plan(
        self,
        key: SessionKey,
        session: _Session,
        record: Lifecycle,
        snapshot: Snapshot,
        asked_at: float,
    ) -> None:
        """Plan the next read of a session, at the instant at which it next changes by itself.

        The snapshot is not older than `asked_at`. An instant that is counted from there comes a
        little early and never late, and a read that comes too early plans another one.
        """
        known = session.watches[0].known if session.watches else None
        if known is None or not self._store.rules.enforced:
            return
        moment = next_moment(record, known, self._warn_before)
        if moment is None:
            session.looks_at = None
            return
        ahead = (moment - snapshot.at).total_seconds()
        when = max(asked_at + ahead, time.monotonic() + _GATHER.total_seconds())
        if session.looks_at is None or abs(session.looks_at - when) > _GATHER.total_seconds():
            session.looks_at = when
            heapq.heappush(self._instants, (when, key))
            if len(self._instants) > _MOST_STALE + 2 * len(self._sessions):
                # Most are of sessions that were extended, or that nobody watches any more.
                self._instants = [
                    (kept.looks_at, each)
                    for each, kept in self._sessions.items()
                    if kept.looks_at is not None
                ]
                heapq.heapify(self._instants)

    @property
    def _warn_before(self) -> timedelta:
        return self.options.warn_before if self._store.rules.enforced else timedelta(0)
