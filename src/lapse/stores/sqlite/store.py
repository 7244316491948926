"""The SQLite store: the embedded default, one file, any number of processes on one machine.

Writes go through one thread that commits what has queued up in one transaction; reads have
connections of their own. WAL and `synchronous=FULL`: what was acknowledged survives a power cut.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import date, datetime, timedelta
from typing import Any, Final, TypeVar

from lapse.documents import StateDelta
from lapse.errors import StoreUnavailableError
from lapse.lifecycle import Cause, Change, Lifecycle, Rules, SessionKey
from lapse.observations import FirstMessage, Round
from lapse.operating import Tally
from lapse.run_store import RunNews, RunRecord, RunStatus
from lapse.store import (
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
from lapse.stores.sqlite import (
    appending,
    lobby,
    observations,
    reading,
    rows,
    runs,
    watching,
)
from lapse.stores.sqlite.adopting import SqliteAdopting
from lapse.stores.sqlite.lanes import Lane
from lapse.stores.sqlite.schema import connect, pending_script, prepare, prepare_connection
from lapse.stores.sqlite.transaction import NO_SESSION, Transaction
from lapse.ttl import Decision, Scope
from lapse.ttl.observed import Count
from lapse.watching import Snapshot

T = TypeVar("T")

MEMORY: Final = ":memory:"

_READERS: Final = 2
_READS_TOGETHER: Final = 8
_WRITES_TOGETHER: Final = 256


class SqliteStore(SqliteAdopting):
    """A Store in one SQLite file, or in memory with the path `:memory:`."""

    def __init__(self, path: str, rules: Rules = Rules()) -> None:
        self._path = path
        self._rules = rules
        self._opening = threading.Lock()
        self._lanes: tuple[Lane, Lane] | None = None
        self._closed = False

    @property
    def rules(self) -> Rules:
        return self._rules

    async def open(self) -> None:
        if self._lanes is None:
            await asyncio.to_thread(self._open)

    async def _opened(self) -> tuple[Lane, Lane]:
        return await asyncio.to_thread(self._open)

    async def pending_migration(self) -> str:
        return await asyncio.to_thread(pending_script, self._path)

    def hints(
        self,
        nearer: Callable[[timedelta], None],  # noqa: ARG002 - the protocol's parameter
    ) -> AbstractAsyncContextManager[None]:
        """Enter and leave without a word: SQLite tells no process what another one wrote."""
        return nullcontext()

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _open(self) -> tuple[Lane, Lane]:
        with self._opening:
            if self._closed:
                raise StoreUnavailableError("the store is closed")
            if self._lanes is None:
                try:
                    self._lanes = self._make_lanes()
                except sqlite3.Error as error:
                    raise StoreUnavailableError(f"{self._path}: {error}") from error
            return self._lanes

    def _make_lanes(self) -> tuple[Lane, Lane]:
        """Return the lane of the reads and that of the writes: in memory, the same one."""
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

    async def _read(
        self,
        work: Callable[[Transaction], T],
        key: SessionKey | None = None,
        now: datetime | None = None,
    ) -> T:
        reads, _ = self._lanes or await self._opened()
        return await reads.run(self._at(work, key, now))

    async def _write(
        self,
        work: Callable[[Transaction], T],
        key: SessionKey | None = None,
        now: datetime | None = None,
        *,
        flushed: bool = True,
    ) -> T:
        _, writes = self._lanes or await self._opened()
        return await writes.run(self._at(work, key, now), flushed=flushed)

    def _at(
        self, work: Callable[[Transaction], T], key: SessionKey | None, now: datetime | None
    ) -> Callable[[sqlite3.Connection], T]:
        """Bind work to the moment at which it will run: the store's clock is this host's."""

        def run(connection: sqlite3.Connection) -> T:
            clock = time.time_ns() // 1000 if now is None else rows.to_micros(now)
            return work(Transaction(connection, self._rules, clock, key or NO_SESSION))

        return run

    async def ping(self) -> None:
        await self._write(lambda transaction: transaction.first("next_due"))

    async def create(
        self,
        key: SessionKey,
        *,
        state: StateDelta,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        now: datetime | None = None,
    ) -> Created:
        return await self._write(lambda t: lobby.create(t, state, ttl, metadata), key, now)

    async def read(
        self, key: SessionKey, window: EventWindow = EventWindow(), *, now: datetime | None = None
    ) -> SessionRecord | None:
        return await self._read(lambda t: reading.read(t, window), key, now)

    async def list(
        self, app_name: str, user_id: str, *, now: datetime | None = None
    ) -> Sequence[SessionRecord]:
        return await self._read(reading.list_of_user, SessionKey(app_name, user_id, ""), now)

    async def list_of_all_users(
        self, app_name: str, *, now: datetime | None = None
    ) -> Sequence[SessionRecord]:
        return await self._read(reading.list_of_app, SessionKey(app_name, "", ""), now)

    async def append(
        self,
        key: SessionKey,
        event: NewEvent,
        seen: Revision | Glimpse,
        *,
        now: datetime | None = None,
    ) -> Appended:
        step = appending.Append.of(event, seen)
        return await self._write(lambda t: appending.append(t, step), key, now)

    async def delete(self, key: SessionKey, *, now: datetime | None = None) -> Change | None:
        return await self._write(lobby.delete, key, now)

    async def user_state(self, app_name: str, user_id: str) -> dict[str, Any]:
        return await self._read(reading.user_state, SessionKey(app_name, user_id, ""))

    async def lifecycle(self, key: SessionKey, *, now: datetime | None = None) -> Lifecycle | None:
        return await self._read(Transaction.lifecycle, key, now)

    async def amend(
        self,
        key: SessionKey,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        now: datetime | None = None,
    ) -> Outcome:
        return await self._write(lambda t: lobby.amend(t, metadata, ttl), key, now)

    async def extend(self, key: SessionKey, *, now: datetime | None = None) -> Outcome:
        return await self._write(lobby.extend, key, now)

    async def resurrect(
        self, key: SessionKey, *, cause: Cause, now: datetime | None = None
    ) -> Outcome:
        return await self._write(lambda t: lobby.resurrect(t, cause), key, now)

    async def expire_due(self, limit: int, *, now: datetime | None = None) -> Swept:
        return await self._write(lambda t: lobby.expire_due(t, limit), now=now)

    async def purge_due(self, limit: int, *, now: datetime | None = None) -> Swept:
        return await self._write(lambda t: lobby.purge_due(t, limit), now=now)

    async def time_to_next(self, *, now: datetime | None = None) -> timedelta | None:
        return await self._read(lobby.time_to_next, now=now)

    async def tallies(self) -> Sequence[Tally]:
        return await self._read(reading.tallies)

    async def observed(self, *, since: date) -> Sequence[Count]:
        return await self._read(lambda t: observations.observed(t, since))

    async def recent_first_messages(
        self, *, newest: int, reach: timedelta, now: datetime | None = None
    ) -> Sequence[FirstMessage]:
        return await self._read(lambda t: observations.recent(t, newest, reach), now=now)

    async def fold_observations(
        self, *, before: datetime, segments: Collection[Scope], forgotten: datetime
    ) -> None:
        await self._write(lambda t: observations.fold(t, before, segments, forgotten))

    async def refuse(self, key: SessionKey, *, now: datetime | None = None) -> bool:
        return await self._write(observations.refuse, key, now)

    async def ttl_round(self, *, now: datetime | None = None) -> Round:
        return await self._read(observations.ttl_round, now=now)

    async def ttl_decisions(self, *, newest: int = 1) -> Sequence[Decision]:
        return await self._read(lambda t: observations.ttl_decisions(t, newest))

    async def record_decisions(
        self, decisions: Sequence[Decision], *, slot: int, version: int
    ) -> bool:
        return await self._write(
            lambda t: observations.record_decisions(t, decisions, slot, version)
        )

    async def lengthen_waiting(
        self,
        scope: Scope,
        *,
        before: timedelta,
        ttl: timedelta,
        limit: int,
        now: datetime | None = None,
    ) -> Sequence[Change]:
        key = SessionKey(scope.app_name, "", "")
        return await self._write(
            lambda t: observations.lengthen_waiting(t, scope, before, ttl, limit), key, now
        )

    # What runs need. Their beginnings and heartbeats mean nothing without their process.

    async def begin_run(
        self, key: SessionKey, run_id: str, *, most_of_user: int, now: datetime | None = None
    ) -> RunRecord:
        return await self._write(
            lambda t: runs.begin(t, run_id, most_of_user), key, now, flushed=False
        )

    async def note_run(self, run_id: str, invocation_id: str, since: datetime) -> None:
        await self._write(
            lambda t: runs.note(t, run_id, invocation_id, since), NO_SESSION, flushed=False
        )

    async def beat_runs(
        self, run_ids: Sequence[str], *, now: datetime | None = None
    ) -> Mapping[str, bool]:
        return await self._write(lambda t: runs.beat(t, run_ids), NO_SESSION, now, flushed=False)

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        *,
        error: Mapping[str, Any] | None = None,
        until: datetime | None = None,
        now: datetime | None = None,
    ) -> bool:
        return await self._write(
            lambda t: runs.end(t, run_id, status, error, until), NO_SESSION, now
        )

    async def cancel_run(
        self, key: SessionKey, run_id: str, *, now: datetime | None = None
    ) -> RunRecord | None:
        return await self._write(lambda t: runs.cancel(t, run_id), key, now)

    async def find_run(
        self,
        key: SessionKey,
        run_id: str | None = None,
        *,
        event_id: str | None = None,
        now: datetime | None = None,
    ) -> RunRecord | None:
        return await self._read(lambda t: runs.find(t, run_id, event_id), key, now)

    async def run_news(
        self, places: Mapping[str, str | None], *, limit: int, now: datetime | None = None
    ) -> Sequence[RunNews]:
        return await self._read(lambda t: runs.news(t, places, limit), NO_SESSION, now)

    async def forget_runs(self, limit: int, *, now: datetime | None = None) -> int:
        return await self._write(lambda t: runs.forget(t, limit), NO_SESSION, now)

    async def records(
        self, keys: Collection[SessionKey], *, now: datetime | None = None
    ) -> Snapshot:
        return await self._read(lambda t: watching.records(t, keys), now=now)

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
