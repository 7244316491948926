"""The SQLite store: the embedded default, one file, any number of processes on one machine.

Writes go through one thread, which commits all operations that have queued up in one transaction;
reads have connections of their own. With WAL and `synchronous=FULL`, a write that was acknowledged
survives a power cut.
"""

from __future__ import annotations

import asyncio
import copy
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

from lapse.core.clock import utc_now
from lapse.core.errors import StoreRefusedError, StoreUnavailableError
from lapse.core.forks import Forked
from lapse.core.lifecycle import Rules
from lapse.store.database import CLOSED, Inspection
from lapse.store.opening import Opening
from lapse.store.operation import Asking, Dialect
from lapse.store.options import ConnectionOptions
from lapse.store.schemas import missing_indexes, newest_version
from lapse.store.sqlite import append, neighbours, reading
from lapse.store.sqlite.batch import Batch
from lapse.store.sqlite.files import OpenFiles
from lapse.store.sqlite.lanes import Lane, LaneClosedError
from lapse.store.sqlite.schema import (
    BUSY_TIMEOUT,
    connect,
    explain,
    look,
    missing_in,
    prepare,
    prepare_connection,
    set_up,
)
from lapse.store.sqlite.scrubbing import scrubbed
from lapse.store.sqlite.snapshot import SqliteSnapshot, copy_of, of_file, snapshot_on
from lapse.store.sqlite.transaction import Transaction
from lapse.store.sqlite.values import to_micros
from lapse.store.sqlite.writing import WriteLock

T = TypeVar("T")

MEMORY: Final = ":memory:"

_READERS: Final = 2
_READS_TOGETHER: Final = 8
_WRITES_TOGETHER: Final = 256

_NATIVES: Final[Mapping[str, Callable[..., Any]]] = {
    "append": append.append,
    "hold": append.hold,
    "read": reading.read,
    "list_of_user": reading.list_of_user,
    "list_of_app": reading.list_of_app,
    # Every operation is one transaction, in a thread of its own.
    "together": lambda transaction, asking: transaction.drive(asking()),
    "apart": lambda _, work, *arguments: work(*arguments),
}


class _Lanes(Forked):
    """The read lane and the write lane of a store; its copies with other clocks share them.

    They are made when they are first needed. In memory, both are the same lane.

    While the process forks there are none: their threads would not live on in the child, and the
    locks that SQLite holds for an open file are the parent's. Parent and child make them again.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._gate = threading.Lock()
        self._opening = Opening(lambda: asyncio.to_thread(self._open))
        self._lanes: tuple[Lane, Lane] | None = None
        self._memory: sqlite3.Connection | None = None
        self._closed = False
        self.survive_forks()

    async def get(self) -> tuple[Lane, Lane]:
        """Return the read lane and the write lane.

        Raises:
            StoreUnavailableError: the lanes are closed, or SQLite cannot open the file.
        """
        while (lanes := self._lanes) is None:
            await self._opening.finish()
        return lanes

    def are(self, lanes: tuple[Lane, Lane]) -> bool:
        """Return whether these are the lanes in use."""
        return self._lanes is lanes

    def open(self) -> None:
        """Make lanes again, after `close`."""
        self._closed = False

    async def close(self) -> None:
        """Close both lanes until `open`."""
        await asyncio.to_thread(self._close)

    def before_fork(self) -> None:
        """Close the lanes, and make none until the process has forked."""
        self._gate.acquire()
        self._close_lanes(memory=False)

    def after_fork(self) -> None:
        """Make lanes again when they are needed."""
        self._gate.release()

    def after_fork_in_child(self) -> None:
        """Make lanes when they are needed."""
        self._gate = threading.Lock()

    def _open(self) -> tuple[Lane, Lane]:
        with self._gate:
            if self._closed:
                raise StoreUnavailableError(CLOSED)
            if self._lanes is None:
                try:
                    self._lanes = self._make()
                except sqlite3.Error as error:
                    raise StoreUnavailableError(f"{self._path}: {error}") from error
            return self._lanes

    def _make(self) -> tuple[Lane, Lane]:
        if self._path == MEMORY:
            kept = self._memory = self._memory or _connect_memory()
            both = Lane("memory", lambda: kept, begin=_begin, threads=1, most=_WRITES_TOGETHER)
            return both, both
        prepare(self._path)
        place = str(Path(self._path).absolute())
        reads = Lane(
            "read",
            lambda: connect(self._path, cache=1000),
            place=place,
            begin=_begin,
            threads=_READERS,
            most=_READS_TOGETHER,
        )
        writer = connect(self._path, cache=4000)
        writer.execute("SELECT 1 FROM lapse_schema")  # only now SQLite has all of its files
        writer.execute("PRAGMA busy_timeout = 0")  # `WriteLock` waits
        writes = Lane(
            "write",
            lambda: writer,
            place=place,
            begin=WriteLock(place, BUSY_TIMEOUT).begin,
            threads=1,
            most=_WRITES_TOGETHER,
            check=OpenFiles(self._path).check,
        )
        return reads, writes

    def _close(self) -> None:
        with self._gate:
            self._closed = True
            self._close_lanes(memory=True)

    def _close_lanes(self, *, memory: bool) -> None:
        """Close the lanes; what is in memory stays unless `memory` says otherwise."""
        lanes, self._lanes = self._lanes, None
        for lane in lanes or ():
            lane.close(connections=self._memory is None)
        if memory and self._memory is not None:
            self._memory.close()
            self._memory = None


class SqliteDatabase:
    """A Database in one SQLite file, or in memory with the path `:memory:`.

    The clock is the host's. The moment of an operation is when its thread begins it.
    """

    def __init__(self, path: str, rules: Rules | None = None) -> None:
        self._path = path
        self._has_rules = rules is not None
        self._rules = rules or Rules()
        self._lanes = _Lanes(path)
        self._now: datetime | None = None

    @property
    def rules(self) -> Rules:
        return self._rules

    def default_to(self, rules: Rules, options: ConnectionOptions) -> None:  # noqa: ARG002 - for servers
        if not self._has_rules:
            self._rules = rules

    async def open(self) -> None:
        self._lanes.open()
        await self._lanes.get()

    async def close(self) -> None:
        await self._lanes.close()

    async def run(
        self,
        asking: Callable[[], Asking[T]],
        *,
        writes: bool = True,
        flushed: bool = True,
        together: bool = False,  # noqa: ARG002 - every operation is one transaction
    ) -> T:
        def work(batch: Batch) -> T:
            return self._transaction(batch).drive(asking())

        while True:
            lanes = await self._lanes.get()
            reading_lane, writing_lane = lanes
            try:
                if writes:
                    return await writing_lane.run(work, flushed=flushed)
                return await reading_lane.run(work)
            except LaneClosedError:
                # They were closed because the process forks, or the store is closed: `get` tells.
                if self._lanes.are(lanes):
                    raise

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[SqliteSnapshot]:
        reads, _ = await self._lanes.get()
        make = of_file(self._path)
        if self._path == MEMORY:
            copied = await reads.run(lambda batch: copy_of(batch.connection))
            make = lambda: copied  # noqa: E731 - the same as `of_file` returns
        async with snapshot_on(make, self._path, self._rules, self._transaction) as snapshot:
            yield snapshot

    async def scrub(self) -> str | None:
        if self._path == MEMORY:
            return None
        await self.open()
        return await asyncio.to_thread(scrubbed, self._path)

    def listen(
        self, channel: str, hear: Callable[[str], None]
    ) -> AbstractAsyncContextManager[None]:
        """Hear of other workers of this server; of no other process: SQLite notifies nobody."""
        return neighbours.listen(channel, hear)

    async def notify(self, channel: str, texts: Iterable[str]) -> None:
        """Tell the other workers of this server; a no-op in a process that is no worker."""
        neighbours.notify(channel, texts)

    def at(self, now: datetime) -> Self:
        other = copy.copy(self)
        other._now = now  # noqa: SLF001 - it is of this class
        return other

    async def inspect(self, *, most: int = 0) -> Inspection:
        if self._path != MEMORY:
            return await asyncio.to_thread(self._inspect_file, most)
        lane, _ = await self._lanes.get()
        return await lane.run(lambda batch: self._inspect(batch, most))

    def _transaction(self, batch: Batch) -> Transaction:
        now = time.time_ns() // 1000 if self._now is None else to_micros(self._now)
        return Transaction(batch, self._rules, now, _NATIVES)

    def _inspect_file(self, most: int) -> Inspection:
        file = Path(self._path)
        newest = newest_version(Dialect.SQLITE)
        if not file.exists():  # connecting would create it
            if not file.absolute().parent.is_dir():
                raise StoreRefusedError(
                    f"{self._path}: its directory does not exist; create {file.absolute().parent}"
                )
            return Inspection(utc_now(), 0, newest, missing_in(None, self._path))
        try:
            uri = f"file:{quote(self._path)}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                set_up(connection)
                return self._inspect(Batch(connection), most)
        except sqlite3.Error as error:
            raise StoreRefusedError(f"{self._path}: {explain(error)}") from error

    def _inspect(self, batch: Batch, most: int) -> Inspection:
        script = missing_in(batch.connection, self._path)
        version, newest = look(batch.connection).lapse_version, newest_version(Dialect.SQLITE)
        transaction = self._transaction(batch)
        if not version:
            return Inspection(transaction.moment, version, newest, script)
        indexes = {row["name"] for row in transaction.run("indexes")}
        sessions = transaction.first("inspect_sessions", most=most)
        assert sessions is not None
        return Inspection(
            transaction.moment,
            version,
            newest,
            script,
            missing_indexes(Dialect.SQLITE, version, indexes),
            **sessions,
        )


def _begin(connection: sqlite3.Connection) -> bool:
    connection.execute("BEGIN")
    return False


def _connect_memory() -> sqlite3.Connection:
    connection = connect(MEMORY, cache=4000)
    prepare_connection(connection, MEMORY)
    return connection
