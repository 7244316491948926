"""What a watcher of sessions asks of a store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle


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
