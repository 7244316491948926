"""The SQLite store: the embedded default, one file, any number of processes on one machine.

Writes go through one thread that commits what has queued up in one transaction; reads have
connections of their own. WAL and `synchronous=FULL`: what was acknowledged survives a power cut.
"""

from __future__ import annotations

import asyncio
import copy
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import date, datetime, timedelta
from typing import Any, Final, Self, TypeVar

from lapse.check.store import Inspection
from lapse.core.documents import StateDelta
from lapse.core.errors import StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Change, Lifecycle, Rules
from lapse.notices.store import Snapshot
from lapse.runs.store import RunNews, RunRecord, RunStatus
from lapse.store.sessions import (
    Appended,
    Created,
    EventWindow,
    Glimpse,
    NewEvent,
    Outcome,
    Revision,
    SessionRecord,
    Swept,
)
from lapse.store.sqlite import append as appending
from lapse.store.sqlite import lobby, observations, reading, runs, watching
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.adopting import SqliteAdopting
from lapse.store.sqlite.auditing import SqliteAudited
from lapse.store.sqlite.inspecting import SqliteInspected, inspect_file
from lapse.store.sqlite.lanes import Lane
from lapse.store.sqlite.limiting import SqliteLimiting
from lapse.store.sqlite.operating import SqliteOperated
from lapse.store.sqlite.schema import connect, pending_script, prepare, prepare_connection
from lapse.store.sqlite.transaction import NO_SESSION, Transaction
from lapse.ttl import Decision, Scope
from lapse.ttl.observed import Count
from lapse.ttl.store import FirstMessage, Round

T = TypeVar("T")

MEMORY: Final = ":memory:"

_READERS: Final = 2
_READS_TOGETHER: Final = 8
_WRITES_TOGETHER: Final = 256


class _Lanes:
    """The lane of the reads and that of the writes, which a store has by whatever clock.

    They are made when they are first needed, once. In memory, both are the same lane.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._opening = threading.Lock()
        self._lanes: tuple[Lane, Lane] | None = None
        self._closed = False

    async def get(self) -> tuple[Lane, Lane]:
        """Return both.

        Raises:
            StoreUnavailableError: they are closed, or SQLite cannot open the file.
        """
        if self._lanes is None:
            return await asyncio.to_thread(self._open)
        return self._lanes

    async def close(self) -> None:
        """Close both, for good."""
        await asyncio.to_thread(self._close)

    def _open(self) -> tuple[Lane, Lane]:
        with self._opening:
            if self._closed:
                raise StoreUnavailableError("the store is closed")
            if self._lanes is None:
                try:
                    self._lanes = self._make()
                except sqlite3.Error as error:
                    raise StoreUnavailableError(f"{self._path}: {error}") from error
            return self._lanes

    def _make(self) -> tuple[Lane, Lane]:
        if self._path == MEMORY:
            both = Lane("memory", _connect_memory, begin="BEGIN", threads=1, most=_WRITES_TOGETHER)
            return both, both
        prepare(self._path)
        reads = Lane(
            "read",
            lambda: connect(self._path, cache=1000),
            begin="BEGIN",
            threads=_READERS,
            most=_READS_TOGETHER,
        )
        writes = Lane(
            "write",
            lambda: connect(self._path, cache=4000),
            begin="BEGIN IMMEDIATE",
            threads=1,
            most=_WRITES_TOGETHER,
        )
        return reads, writes

    def _close(self) -> None:
        with self._opening:
            self._closed = True
            for lane in self._lanes or ():
                lane.close()


class SqliteStore(SqliteAdopting, SqliteAudited, SqliteInspected, SqliteLimiting, SqliteOperated):
    """A Store in one SQLite file, or in memory with the path `:memory:`."""

    def __init__(self, path: str, rules: Rules = Rules()) -> None:
        self._path = path
        self._rules = rules
        self._lanes = _Lanes(path)
        self._now: datetime | None = None

    def at(self, now: datetime) -> Self:
        other = copy.copy(self)
        other._now = now  # noqa: SLF001 - another of this class
        return other

    @property
    def rules(self) -> Rules:
        return self._rules

    async def open(self) -> None:
        await self._lanes.get()

    async def pending_migration(self) -> str:
        return await asyncio.to_thread(pending_script, self._path)

    def hints(
        self,
        nearer: Callable[[timedelta], None],  # noqa: ARG002 - the protocol's parameter
    ) -> AbstractAsyncContextManager[None]:
        """Enter and leave without a word: SQLite tells no process what another one wrote."""
        return nullcontext()

    async def close(self) -> None:
        await self._lanes.close()

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
            now = time.time_ns() // 1000 if self._now is None else rows.to_micros(self._now)
            return work(Transaction(connection, self._rules, now, key or NO_SESSION))

        return run

    async def _inspect(self, inspect: Callable[[sqlite3.Connection], Inspection]) -> Inspection:
        if self._path == MEMORY:
            return await self._read(lambda transaction: inspect(transaction.connection))
        return await inspect_file(self._path, inspect)

    async def ping(self) -> None:
        await self._write(lambda transaction: transaction.first("next_due"))

    async def create(
        self,
        key: SessionKey,
        *,
        state: StateDelta,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        site: str | None = None,
    ) -> Created:
        return await self._write(lambda t: lobby.create(t, state, ttl, metadata, site), key)

    async def read(
        self, key: SessionKey, window: EventWindow = EventWindow()
    ) -> SessionRecord | None:
        return await self._read(lambda t: reading.read(t, window), key)

    async def list(self, app_name: str, user_id: str) -> Sequence[SessionRecord]:
        return await self._read(reading.list_of_user, SessionKey(app_name, user_id, ""))

    async def list_of_all_users(self, app_name: str) -> Sequence[SessionRecord]:
        return await self._read(reading.list_of_app, SessionKey(app_name, "", ""))

    async def append(self, key: SessionKey, event: NewEvent, seen: Revision | Glimpse) -> Appended:
        step = appending.Append.of(event, seen)
        return await self._write(lambda t: appending.append(t, step), key)

    async def delete(self, key: SessionKey, *, by: str | None = None) -> Change | None:
        return await self._write(lambda t: lobby.delete(t, by), key)

    async def user_state(self, app_name: str, user_id: str) -> dict[str, Any]:
        return await self._read(reading.user_state, SessionKey(app_name, user_id, ""))

    async def lifecycle(self, key: SessionKey) -> Lifecycle | None:
        return await self._read(Transaction.lifecycle, key)

    async def amend(
        self,
        key: SessionKey,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        by: str | None = None,
    ) -> Outcome:
        return await self._write(lambda t: lobby.amend(t, metadata, ttl, by), key)

    async def extend(self, key: SessionKey, *, by: str | None = None) -> Outcome:
        return await self._write(lambda t: lobby.extend(t, by), key)

    async def resurrect(self, key: SessionKey, *, cause: Cause, by: str | None = None) -> Outcome:
        return await self._write(lambda t: lobby.resurrect(t, cause, by), key)

    async def expire(self, key: SessionKey, *, by: str | None = None) -> Outcome:
        return await self._write(lambda t: lobby.expire(t, by), key)

    async def expire_due(self, limit: int) -> Swept:
        return await self._write(lambda t: lobby.expire_due(t, limit))

    async def purge_due(self, limit: int) -> Swept:
        return await self._write(lambda t: lobby.purge_due(t, limit))

    async def time_to_next(self) -> timedelta | None:
        return await self._read(lobby.time_to_next)

    async def observed(self, *, since: date) -> Sequence[Count]:
        return await self._read(lambda t: observations.observed(t, since))

    async def recent_first_messages(
        self, *, newest: int, reach: timedelta
    ) -> Sequence[FirstMessage]:
        return await self._read(lambda t: observations.recent(t, newest, reach))

    async def fold_observations(
        self, *, before: datetime, segments: Collection[Scope], forgotten: datetime
    ) -> None:
        await self._write(lambda t: observations.fold(t, before, segments, forgotten))

    async def refuse(self, key: SessionKey) -> bool:
        return await self._write(observations.refuse, key)

    async def ttl_round(self) -> Round:
        return await self._read(observations.ttl_round)

    async def ttl_decisions(self, *, newest: int = 1) -> Sequence[Decision]:
        return await self._read(lambda t: observations.ttl_decisions(t, newest))

    async def record_decisions(
        self, decisions: Sequence[Decision], *, slot: int, version: int
    ) -> bool:
        return await self._write(
            lambda t: observations.record_decisions(t, decisions, slot, version)
        )

    async def lengthen_waiting(
        self, scope: Scope, *, before: timedelta, ttl: timedelta, limit: int
    ) -> Sequence[Change]:
        key = SessionKey(scope.app_name, "", "")
        return await self._write(
            lambda t: observations.lengthen_waiting(t, scope, before, ttl, limit), key
        )

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


def _connect_memory() -> sqlite3.Connection:
    connection = connect(MEMORY, cache=4000)
    prepare_connection(connection, MEMORY)
    return connection
