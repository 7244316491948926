"""The SQLite store with the slices that are not yet written as operations."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import Any, TypeVar

from lapse.core.keys import SessionKey
from lapse.notices.store import Snapshot
from lapse.runs.store import RunNews, RunRecord, RunStatus
from lapse.store.operation import NO_SESSION
from lapse.store.protocol import Store
from lapse.store.sqlite import runs, watching
from lapse.store.sqlite.adopting import SqliteAdopting
from lapse.store.sqlite.auditing import SqliteAudited
from lapse.store.sqlite.database import SqliteDatabase
from lapse.store.sqlite.limiting import SqliteLimiting
from lapse.store.sqlite.operating import SqliteOperated
from lapse.store.sqlite.transaction import Transaction
from lapse.store.sqlite.values import to_micros

T = TypeVar("T")


class SqliteStore(
    SqliteDatabase, SqliteAdopting, SqliteAudited, SqliteLimiting, SqliteOperated, Store
):
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

    # What runs need. Their beginnings and heartbeats mean nothing without their process.

    async def begin_run(self, key: SessionKey, run_id: str, *, most_of_user: int) -> RunRecord:
        return await self._write(lambda t: runs.begin(t, run_id, most_of_user), key, flushed=False)

    async def note_run(self, run_id: str, invocation_id: str, since: datetime) -> None:
        await self._write(lambda t: runs.note(t, run_id, invocation_id, since), flushed=False)

    async def beat_runs(self, run_ids: Sequence[str]) -> Mapping[str, bool]:
        return await self._write(lambda t: runs.beat(t, run_ids), flushed=False)

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        *,
        error: Mapping[str, Any] | None = None,
        until: datetime | None = None,
    ) -> bool:
        return await self._write(lambda t: runs.end(t, run_id, status, error, until))

    async def cancel_run(self, key: SessionKey, run_id: str) -> RunRecord | None:
        return await self._write(lambda t: runs.cancel(t, run_id), key)

    async def find_run(
        self, key: SessionKey, run_id: str | None = None, *, event_id: str | None = None
    ) -> RunRecord | None:
        return await self._read(lambda t: runs.find(t, run_id, event_id), key)

    async def run_news(self, places: Mapping[str, str | None], *, limit: int) -> Sequence[RunNews]:
        return await self._read(lambda t: runs.news(t, places, limit))

    async def forget_runs(self, limit: int) -> int:
        return await self._write(lambda t: runs.forget(t, limit))

    async def records(self, keys: Collection[SessionKey]) -> Snapshot:
        return await self._read(lambda t: watching.records(t, keys))

    async def announce(self, keys: Collection[SessionKey]) -> None:
        """Return without a word, as `hints`."""

    def announcements(
        self,
        heard: Callable[[Collection[str]], None],  # noqa: ARG002 - the protocol's parameter
    ) -> AbstractAsyncContextManager[None]:
        return nullcontext()
