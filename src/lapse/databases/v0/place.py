"""What a migration from version 0 asks of a database: it is written once, for both kinds."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

from lapse.databases.tables import Row
from lapse.databases.v0.rows import Key, OldTable

LARGEST_BATCH: Final = 8 * 1024 * 1024
"""Bytes of a table's rows that are read at a time, and one row more."""


@dataclass(frozen=True, slots=True)
class Span:
    """The rows of a table behind a key, up to another one; None: from the first, or to the last."""

    table: OldTable
    after: Key | None = None
    upto: Key | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows that one transaction has converted: the keys after `after`, up to `last`.

    Attributes:
        table: the name of the table.
        after: the key before the batch; None for the first.
        last: the last key in it.
        rows: how many rows of the old table it has.
        orphans: how many of them were left out: events whose session is deleted.
        old_sum: the checksum of the old rows.
        new_sum: the checksum of the new rows.
    """

    table: str
    after: Key | None
    last: Key
    rows: int
    orphans: int
    old_sum: int
    new_sum: int

    @classmethod
    def of(cls, row: Sequence[str | int]) -> Batch:
        """Read it from a row of lapse_v0_batches."""
        table, after, last, rows, orphans, old_sum, new_sum = row
        begins = tuple(json.loads(str(after))) if after else None
        ends = tuple(json.loads(str(last)))
        sums = int(str(old_sum), 16), int(str(new_sum), 16)
        return cls(str(table), begins, ends, int(rows), int(orphans), *sums)

    @property
    def stored(self) -> tuple[str | int, ...]:
        """Return it as a row of lapse_v0_batches."""
        return (
            self.table,
            "" if self.after is None else json.dumps(self.after),
            json.dumps(self.last),
            self.rows,
            self.orphans,
            f"{self.old_sum:064x}",
            f"{self.new_sum:064x}",
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What a migration finds in a database.

    Attributes:
        columns: the columns of each table that has some, of ADK's names with and without prefixes.
        hangs: an object of others, such as a view, that depends on ADK's tables and would not
            follow; empty: there is none.
        others: how many other connections a server has to the database.
    """

    columns: Mapping[str, Collection[str]] = field(default_factory=dict)
    hangs: str = ""
    others: int = 0


class Work(Protocol):
    """A database under the lock of a migration: nobody else writes to ADK's tables."""

    async def look(self) -> Look:
        """Return what there is."""
        ...

    async def begin(self, zone: str) -> str:
        """Make the new tables, unless they exist; return the time zone of the migration."""
        ...

    async def batches(self) -> Sequence[Batch]:
        """Return what was converted so far."""
        ...

    async def read(self, span: Span) -> list[Row]:
        """Return the next rows of an old table, by their keys: at most PAGE rows."""
        ...

    async def read_new(self, prefix: str, span: Span) -> list[Row]:
        """Return the next rows of a new table, whose name has a prefix."""
        ...

    async def count(self, name: str) -> int:
        """Return how many rows a table has."""
        ...

    async def exchange(
        self, batch: Batch, table: OldTable, rows: Sequence[Row], check: Callable[[list[Row]], None]
    ) -> None:
        """Write the new rows of a batch, and note the batch: in one transaction.

        The rows that an earlier batch of the same keys has written are deleted. `check` gets the
        written rows, read back; if it raises, nothing is kept.
        """
        ...

    async def forget(self, batch: Batch) -> None:
        """Forget that a batch was converted: its old rows have changed."""
        ...

    async def swap(self) -> None:
        """Set the old tables aside and put the new ones in their place, in one transaction."""
        ...

    async def swap_back(self, *, keeping: bool) -> None:
        """Put the old tables back, in one transaction; the new ones are dropped, or set aside."""
        ...

    async def drop(self) -> None:
        """Drop the old tables that were set aside, and the migration's own."""
        ...


class Place(Protocol):
    """A database of ADK's."""

    name: str

    async def look(self) -> Look:
        """Return what the database has, and change nothing.

        Raises:
            StoreRefusedError: there is no such file, or it is no database.
            StoreUnavailableError: the server does not answer.
        """
        ...

    def reading(self) -> AbstractAsyncContextManager[Work]:
        """Enter one moment of the database, to read only."""
        ...

    def locked(self, *, alone: bool = False) -> AbstractAsyncContextManager[Work]:
        """Enter the database while nobody else may write to ADK's tables, nor read them if `alone`.

        Tables change their places only if `alone`.

        Raises:
            StoreRefusedError: somebody writes, or this role may not do it.
        """
        ...
