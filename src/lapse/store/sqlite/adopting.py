"""The outbox in SQLite, until it is written as operations."""

from __future__ import annotations

from collections.abc import Sequence

from lapse.adoption.store import Leftover
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.part import SqlitePart
from lapse.store.sqlite.transaction import Transaction


def take_outbox(transaction: Transaction, limit: int) -> list[Leftover]:
    """Take what is due of the outbox; see `AdoptingStore.take_outbox`."""
    return [
        Leftover(
            rows.key_of(row),
            rows.from_micros(row["ended_at"]),
            row["attempts"],
            bool(row["lives"]),
        )
        for row in transaction.run("take_outbox", limit=limit).fetchall()
    ]


class SqliteAdopting(SqlitePart):
    """The outbox."""

    async def take_outbox(self, limit: int) -> Sequence[Leftover]:
        """Take what is due of the outbox."""
        return await self._write(lambda t: take_outbox(t, limit))

    async def settle_outbox(self, leftover: Leftover) -> None:
        """Note that one is done."""
        ended_at = rows.to_micros(leftover.ended_at)
        await self._write(lambda t: t.run("settle_outbox", ended_at=ended_at), leftover.key)
