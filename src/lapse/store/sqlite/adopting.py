"""Adoption in SQLite; see `lapse.adoption.store`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from lapse.adoption.store import Adopted, Adoption, Batch, Leftover, PutBack
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import HELD_BYTES, HELD_EVENTS, Change, ChangeKind, Status
from lapse.store.operation import NO_SESSION
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.part import SqlitePart
from lapse.store.sqlite.transaction import Transaction


def adopt(transaction: Transaction, batch: Batch) -> Adopted:
    """Adopt one batch; see `AdoptingStore.adopt`."""
    selection = batch.selection
    found = transaction.run(
        "orphans",
        **_after(batch.after),
        limit=batch.limit,
        only_app=selection.app_name,
        created_until=rows.to_text(transaction.moment - selection.older_than),
        since=None if selection.since is None else rows.to_text(selection.since),
        with_state=selection.with_state,
        with_events=selection.with_events,
    ).fetchall()
    changes = [
        change
        for row in found
        if row["is_orphan"] and (change := _adopt_one(transaction, batch, row)) is not None
    ]
    if changes:
        transaction.run("count_adopted", run=batch.run, sessions=len(changes))
    last = rows.key_of(found[-1]) if len(found) == batch.limit else None
    return Adopted(changes, len(found), last)


def _adopt_one(transaction: Transaction, batch: Batch, row: sqlite3.Row) -> Change | None:
    own = replace(transaction, key=rows.key_of(row))
    held = _held(own) if batch.selection.with_events else "[]"
    if held is None:
        return None
    created_at = rows.to_micros(rows.from_text(row["create_time"]))
    ttl = rows.duration_micros(batch.ttl)
    adopted = own.first(
        "adopt",
        created_at=created_at,
        ttl=ttl,
        is_due=own.rules.enforced and created_at + ttl <= own.now,
        state=row["state"],
        held_events=held,
        session_update_time=row["update_time"],
    )
    own.run("note_adopted", run=batch.run, create_time=row["create_time"], created_at=created_at)
    own.run("delete_session")
    assert adopted is not None
    own.count(ChangeKind.ADOPTED, None, Status(adopted["status"]))
    return Change(ChangeKind.ADOPTED, own.moment, rows.lobby_record(adopted, own.rules, own.now))


def _held(own: Transaction) -> str | None:
    """Return a session's events as the lobby holds them; None where it would not."""
    events = own.run("read_events", after="", newest=HELD_EVENTS + 1).fetchall()
    held = json.dumps([dict(event) for event in reversed(events)])
    return None if len(events) > HELD_EVENTS or len(held) > HELD_BYTES else held


def put_back(transaction: Transaction, run: str, after: SessionKey | None, limit: int) -> PutBack:
    """Put one batch back; see `AdoptingStore.put_back`."""
    taken = transaction.run("take_adopted", run=run, **_after(after), limit=limit).fetchall()
    count = sum(_put_one_back(transaction, row) for row in taken)
    return PutBack(count, len(taken), rows.key_of(taken[-1]) if taken else None)


def _put_one_back(transaction: Transaction, row: sqlite3.Row) -> int:
    own = replace(transaction, key=rows.key_of(row))
    back = own.run(
        "put_back",
        state=row["state"],
        create_time=row["create_time"],
        session_update_time=row["update_time"],
    ).rowcount
    if back:
        for event in json.loads(row["held_events"]):
            own.run(
                "move_event",
                event_id=event["id"],
                invocation_id=event["invocation_id"],
                event_time=event["timestamp"],
                event_data=event["event_data"],
            )
        own.run("delete_record")
        own.count(None, Status(row["status"]), None)
    return back


def adoptions(transaction: Transaction) -> list[Adoption]:
    """Return the runs of adoption; see `AdoptingStore.adoptions`."""
    transaction.run("forget_adopted")
    return [
        Adoption(row["run"], rows.from_micros(row["began_at"]), row["sessions"], row["remaining"])
        for row in transaction.run("adoptions")
    ]


def prepared_at(transaction: Transaction) -> datetime:
    """Return when Lapse's tables were made; see `AdoptingStore.prepared_at`."""
    row = transaction.first("prepared_at")
    assert row is not None
    return rows.from_text(row["prepared_at"])


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


def _after(after: SessionKey | None) -> dict[str, str]:
    key = after or NO_SESSION
    return {"after_app": key.app_name, "after_user": key.user_id, "after_session": key.session_id}


class SqliteAdopting(SqlitePart):
    """The part of the SQLite store that is an `AdoptingStore`."""

    async def adopt(self, batch: Batch) -> Adopted:
        """Adopt one batch."""
        return await self._write(lambda t: adopt(t, batch))

    async def put_back(self, run: str, *, after: SessionKey | None, limit: int) -> PutBack:
        """Put one batch back."""
        return await self._write(lambda t: put_back(t, run, after, limit))

    async def adoptions(self) -> Sequence[Adoption]:
        """Return the runs of adoption."""
        return await self._write(adoptions)

    async def prepared_at(self) -> datetime:
        """Return when Lapse's tables were made."""
        return await self._read(prepared_at)

    async def take_outbox(self, limit: int) -> Sequence[Leftover]:
        """Take what is due of the outbox."""
        return await self._write(lambda t: take_outbox(t, limit))

    async def settle_outbox(self, leftover: Leftover) -> None:
        """Note that one is done."""
        ended_at = rows.to_micros(leftover.ended_at)
        await self._write(lambda t: t.run("settle_outbox", ended_at=ended_at), leftover.key)
