"""What a watcher of sessions asks of a store, and how watching is bounded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How sessions are watched.

    Attributes:
        warn_before: how long before its deadline a session is announced as expiring, but at
            most half its TTL. Zero: never.
        heartbeat: how often a stream shows that it lives, and how often all watched sessions
            are read, for what other processes did.
        per_session: streams of one session in one process, at most.
        per_user: streams of one user of an app in one process, at most.
    """

    warn_before: timedelta = timedelta(minutes=5)
    heartbeat: timedelta = timedelta(seconds=15)
    per_session: int = 3
    per_user: int = 10

    def __post_init__(self) -> None:
        if self.warn_before < timedelta(0):
            raise InvalidValueError("warn_before", f"must not be negative: {self.warn_before}")
        if self.heartbeat <= timedelta(0):
            raise InvalidValueError("heartbeat", f"must be above 0, not {self.heartbeat}")
        if min(self.per_session, self.per_user) < 1:
            raise InvalidValueError("streams", "at least one must be allowed")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Some sessions at one moment of the store's clock; what is not among `records` is gone."""

    at: datetime
    records: Mapping[SessionKey, Lifecycle]


class Watchable(Protocol):
    """The part of a store that watchers use."""

    async def records(self, keys: Collection[SessionKey]) -> Snapshot:
        """Return the records of many sessions from one read.

        Only a session that Lapse did not create takes a read of its own: of its events.
        """
        ...

    async def announce(self, keys: Collection[SessionKey]) -> None:
        """Tell other processes that these sessions changed, where the store has a way to.

        Only a hint: it may be lost.
        """
        ...

    def announcements(
        self, heard: Callable[[Collection[str]], None]
    ) -> AbstractAsyncContextManager[None]:
        """Call `heard` with the digests of sessions that others announce, inside the context."""
        ...
