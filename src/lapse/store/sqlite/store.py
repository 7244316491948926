"""The SQLite store with the slices that are not yet written as operations."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar

from lapse.core.keys import SessionKey
from lapse.notices.store import Snapshot
from lapse.store.operation import NO_SESSION
from lapse.store.protocol import Store
from lapse.store.sqlite import watching
from lapse.store.sqlite.adopting import SqliteAdopting
from lapse.store.sqlite.auditing import SqliteAudited
from lapse.store.sqlite.database import SqliteDatabase
from lapse.store.sqlite.transaction import Transaction
from lapse.store.sqlite.values import to_micros

T = TypeVar("T")


class SqliteStore(SqliteDatabase, SqliteAdopting, SqliteAudited, Store):
    """A store in one SQLite file, or in memory with the path `:memory:`."""

    async def _read(self, work: Callable[[Transaction], T], key: SessionKey | None = None) -> T:
        reads, _ = await self._lanes.get()
        return await reads.run(self._timed(work, key))

    async def _write(
        self,
        work: Callable[[Transaction], T],
        key: SessionKey | None = None,
        *,
        flushed: bool = True,
    ) -> T:
        _, writes = await self._lanes.get()
        return await writes.run(self._timed(work, key), flushed=flushed)

    def _timed(
        self, work: Callable[[Transaction], T], key: SessionKey | None
    ) -> Callable[[sqlite3.Connection], T]:
        """Bind work to the moment at which it will run: the store's clock is this host's."""

        def run(connection: sqlite3.Connection) -> T:
            now = time.time_ns() // 1000 if self._now is None else to_micros(self._now)
            return work(Transaction(connection, self._rules, now, {}, key or NO_SESSION))

        return run

    async def records(self, keys: Collection[SessionKey]) -> Snapshot:
        return await self._read(lambda t: watching.records(t, keys))

    async def announce(self, keys: Collection[SessionKey]) -> None:
        """Return without a word, as `hints`."""

    def announcements(
        self,
        heard: Callable[[Collection[str]], None],  # noqa: ARG002 - the protocol's parameter
    ) -> AbstractAsyncContextManager[None]:
        return nullcontext()
