"""Counts and checksums of what a migration from version 0 converts, and how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from lapse.databases.tables import Checksum, Row, Type
from lapse.databases.v0.place import Batch, Span, Work
from lapse.databases.v0.rows import OldTable
from lapse.databases.v0.wording import key_of_new

Bars = Callable[[str], AbstractContextManager[Callable[[int], None]]]
"""Shows how far the part of this name is; yields a function that is called with numbers of rows."""


def no_bars(_: str) -> AbstractContextManager[Callable[[int], None]]:
    """Show nothing."""
    return nullcontext(lambda _: None)


def sum_of_batches(batches: Iterable[Batch]) -> Batch:
    """Return one batch with the sums of all."""
    found = Batch("", None, (), 0, 0, 0, 0)
    for batch in batches:
        found = replace(
            found,
            rows=found.rows + batch.rows,
            orphans=found.orphans + batch.orphans,
            old_sum=(found.old_sum + batch.old_sum) % 2**256,
            new_sum=(found.new_sum + batch.new_sum) % 2**256,
        )
    return found


async def pages(work: Work, span: Span) -> AsyncIterator[list[Row]]:
    """Read the old rows of a span, page by page."""
    while rows := await work.read(span):
        yield rows
        span = replace(span, after=span.table.key_of(rows[-1]))


async def sum_of_old(work: Work, span: Span) -> tuple[int, int]:
    """Return how many old rows a span has, and their checksum."""
    found = Checksum(told_of(span.table))
    async for rows in pages(work, span):
        await asyncio.to_thread(found.add, rows)
    return found.rows, found.total


async def sum_of_new(work: Work, prefix: str, table: OldTable) -> tuple[int, int]:
    """Return how many rows a new table has, whose name has a prefix, and their checksum."""
    found, span = Checksum(table.new.columns), Span(table)
    while rows := await work.read_new(prefix, span):
        await asyncio.to_thread(found.add, rows)
        span = replace(span, after=key_of_new(table, rows[-1]))
    return found.rows, found.total


def sum_of(columns: Sequence[tuple[str, Type]], rows: Sequence[Row]) -> tuple[int, int]:
    """Return how many rows these are, and their checksum."""
    found = Checksum(columns)
    found.add(rows)
    return found.rows, found.total


def told_of(table: OldTable) -> Sequence[tuple[str, Type]]:
    """Return the columns of an old row for its checksum: JSON counts to the letter."""
    return [(name, Type.PLAIN if kind is Type.JSON else kind) for name, kind in table.read]
