"""Adoption in PostgreSQL; see `lapse.adoption.store`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from lapse.adoption.store import Adopted, Adoption, Batch, Leftover, PutBack
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import HELD_BYTES, HELD_EVENTS, Change, ChangeKind
from lapse.store.operation import NO_SESSION
from lapse.store.postgres import values as rows
from lapse.store.postgres.call import Call
from lapse.store.postgres.connections import Taken
from lapse.store.postgres.part import PostgresPart


async def adopt(call: Call, batch: Batch) -> Adopted:
    """Adopt one batch; see `AdoptingStore.adopt`."""
    selection = batch.selection

    async def both(
        connection: Taken,
    ) -> tuple[asyncpg.Record | None, Sequence[asyncpg.Record]]:
        found = await connection.fetchrow(
            *call.bound(
                "lock_orphans",
                **_after(batch.after),
                limit=batch.limit,
                only_app=selection.app_name,
                older_than=selection.older_than,
                since=None if selection.since is None else rows.to_naive(selection.since),
                with_state=selection.with_state,
                with_events=selection.with_events,
            )
        )
        if found is None or found["session_ids"] is None:
            return found, ()
        return found, await connection.fetch(
            *call.bound(
                "adopt",
                run=batch.run,
                ttl=batch.ttl,
                app_names=found["app_names"],
                user_ids=found["user_ids"],
                session_ids=found["session_ids"],
                with_events=selection.with_events,
                most_events=HELD_EVENTS,
                most_bytes=HELD_BYTES,
            )
        )

    found, adopted = await call.connections.transact(both)
    changes = [
        Change(ChangeKind.ADOPTED, row["now"], rows.lobby_record(row, call.rules))
        for row in adopted
    ]
    examined = 0 if found is None else found["examined"]
    last = None if found is None or examined < batch.limit else _key(found)
    return Adopted(changes, examined, last)


async def put_back(call: Call, run: str, after: SessionKey | None, limit: int) -> PutBack:
    """Put one batch back; see `AdoptingStore.put_back`."""
    row = await call.first("put_back", run=run, **_after(after), limit=limit)
    if row is None:
        return PutBack(0, 0, None)
    return PutBack(row["put_back"], row["taken"], _key(row))


def _after(after: SessionKey | None) -> dict[str, str]:
    key = after or NO_SESSION
    return {"after_app": key.app_name, "after_user": key.user_id, "after_session": key.session_id}


def _key(row: asyncpg.Record) -> SessionKey:
    return SessionKey(row["app_name"], row["user_id"], row["session_id"])


_FIRST_ANALYZE: Final = 500


class PostgresAdopting(PostgresPart):
    """The part of the PostgreSQL store that is an `AdoptingStore`."""

    async def adopt(self, batch: Batch) -> Adopted:
        """Adopt one batch."""
        done = await adopt(await self._call(), batch)
        known = self._known
        known.adopted += len(done.changes)
        if known.adopted >= max(_FIRST_ANALYZE, 4 * known.analyzed):
            # The lobby grows faster than autovacuum looks, and until its statistics say so,
            # the plans of all who append to sessions are those for an empty one.
            known.analyzed = known.adopted
            await self._connections.write("ANALYZE lapse_lobby, lapse_adopted")
        return done

    async def put_back(self, run: str, *, after: SessionKey | None, limit: int) -> PutBack:
        """Put one batch back."""
        return await put_back(await self._call(), run, after, limit)

    async def adoptions(self) -> Sequence[Adoption]:
        """Return the runs of adoption."""
        call = await self._call()
        await call.run("forget_adopted")
        return [Adoption(**dict(row)) for row in await call.run("adoptions")]

    async def prepared_at(self) -> datetime:
        """Return when Lapse's tables were made."""
        row = await (await self._call()).first("prepared_at")
        assert row is not None
        return rows.from_naive(row["prepared_at"])

    async def take_outbox(self, limit: int) -> Sequence[Leftover]:
        """Take what is due of the outbox."""
        return [
            Leftover(_key(row), row["ended_at"], row["attempts"], row["lives"])
            for row in await (await self._call()).run("take_outbox", limit=limit)
        ]

    async def settle_outbox(self, leftover: Leftover) -> None:
        """Note that one is done."""
        call = await self._call(leftover.key)
        await call.run("settle_outbox", ended_at=leftover.ended_at)
