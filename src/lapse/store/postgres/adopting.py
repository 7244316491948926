"""The outbox in PostgreSQL, until it is written as operations."""

from __future__ import annotations

from collections.abc import Sequence

from lapse.adoption.store import Leftover
from lapse.store.operation import key_of
from lapse.store.postgres.part import PostgresPart


class PostgresAdopting(PostgresPart):
    """The outbox."""

    async def take_outbox(self, limit: int) -> Sequence[Leftover]:
        """Take what is due of the outbox."""
        return [
            Leftover(key_of(row), row["ended_at"], row["attempts"], row["lives"])
            for row in await (await self._call()).run("take_outbox", limit=limit)
        ]

    async def settle_outbox(self, leftover: Leftover) -> None:
        """Note that one is done."""
        call = await self._call(leftover.key)
        await call.run("settle_outbox", ended_at=leftover.ended_at)
