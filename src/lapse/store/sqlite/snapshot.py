"""An SQLite database as it is at one moment."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from lapse.core.errors import StoreUnavailableError
from lapse.core.lifecycle import Rules
from lapse.store.operation import Asking
from lapse.store.sqlite.batch import Batch
from lapse.store.sqlite.schema import connect
from lapse.store.sqlite.transaction import Transaction

T = TypeVar("T")

_CACHE_KIB: Final = 1000


class SqliteSnapshot:
    """A `Snapshot` on a connection of its own, with a transaction that only reads.

    Args:
        connection: the connection; no transaction has begun on it.
        place: the file, as errors name it.
        rules: what the store enforces.
        transaction: makes a transaction of the connection.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        place: str,
        rules: Rules,
        transaction: Callable[[Batch], Transaction],
    ) -> None:
        self._connection = connection
        self._place = place
        self._transaction = transaction
        self._using = threading.Lock()
        """A caller that is cancelled leaves its thread behind, which still reads."""
        self.rules = rules

    def begin(self) -> None:
        """Fix the moment. Blocks."""
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.execute("BEGIN")
        # SQLite takes the snapshot at the first read.
        self._connection.execute("SELECT version FROM lapse_schema LIMIT 1").fetchall()

    def close(self) -> None:
        """Let go of the database. Blocks."""
        self._connection.interrupt()
        with self._using:
            self._connection.close()

    async def run(
        self,
        asking: Callable[[], Asking[T]],
        *,
        writes: bool = True,  # noqa: ARG002 - the protocol's parameter
        flushed: bool = True,  # noqa: ARG002 - likewise
        together: bool = False,  # noqa: ARG002 - likewise
    ) -> T:
        """Drive an operation that only reads; SQLite refuses one that writes."""

        def work() -> T:
            with self._using:
                return self._transaction(Batch(self._connection)).drive(asking())

        try:
            return await asyncio.to_thread(work)
        except sqlite3.DatabaseError as error:
            raise StoreUnavailableError(f"SQLite ({self._place}): {error}") from error


@asynccontextmanager
async def snapshot_on(
    make: Callable[[], sqlite3.Connection],
    place: str,
    rules: Rules,
    transaction: Callable[[Batch], Transaction],
) -> AsyncIterator[SqliteSnapshot]:
    """Yield a snapshot on a connection that is made for it and closed at the end.

    Raises:
        StoreUnavailableError: SQLite cannot open the file.
    """

    def begun() -> SqliteSnapshot:
        made = SqliteSnapshot(make(), place, rules, transaction)
        made.begin()
        return made

    try:
        snapshot = await asyncio.to_thread(begun)
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"SQLite ({place}): {error}") from error
    try:
        yield snapshot
    finally:
        await asyncio.shield(asyncio.to_thread(snapshot.close))


def of_file(path: str) -> Callable[[], sqlite3.Connection]:
    """Return what connects to a file."""
    return lambda: connect(path, cache=_CACHE_KIB)


def copy_of(source: sqlite3.Connection) -> sqlite3.Connection:
    """Return a copy of a database in memory, which only one connection can have."""
    copy = connect(":memory:", cache=_CACHE_KIB)
    source.backup(copy)
    return copy
