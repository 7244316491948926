"""Sessions of ADK's tables that Lapse did not create: adopting them, and putting them back.

An orphan is such a session without a message. Adoption moves orphans into the lobby, where
they wait, or are expired and restorable for a whole horizon; undoing it puts them back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import HELD_BYTES, HELD_EVENTS, Change, ChangeKind
from lapse.store.lobby import all_counted, counted
from lapse.store.operation import (
    Asking,
    Dialect,
    Part,
    Row,
    dialect,
    first,
    key_of,
    only,
    operation,
    rows,
)
from lapse.store.operation import after as after_key
from lapse.store.records import Result, change_of


@dataclass(frozen=True, slots=True)
class Selection:
    """Which orphans to adopt.

    Never taken are those of an evaluation, those that await somebody's answer (a tool's
    confirmation, a long-running call), and those with more events than the lobby holds.

    Attributes:
        app_name: of this app only.
        older_than: created at least this long ago.
        since: created then or later.
        since_prepared: created since Lapse's tables were.
        with_state: also those whose state is not empty.
        with_events: also those that have events, none of which is a message.
    """

    app_name: str | None = None
    older_than: timedelta = timedelta(0)
    since: datetime | None = None
    since_prepared: bool = False
    with_state: bool = False
    with_events: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of an adoption.

    Attributes:
        run: the id under which it can be undone.
        selection: what to take.
        ttl: the TTL of what it takes, counted from creation.
        after: where the batch before it ended; None for the first.
        limit: how many sessions to examine.
    """

    run: str
    selection: Selection
    ttl: timedelta
    after: SessionKey | None
    limit: int


@dataclass(frozen=True, slots=True)
class Examined:
    """How far one batch of an adoption came.

    Attributes:
        sessions: how many of ADK's sessions it looked at.
        last: the last of them, where the next batch goes on; None at the end.
    """

    sessions: int
    last: SessionKey | None


@dataclass(frozen=True, slots=True)
class PutBack:
    """What one batch of an undo did.

    `taken` sessions were tried and `put_back` of them are in ADK's tables again; for the
    others ADK has made a session of the same key. `last` is as in `Examined`.
    """

    put_back: int
    taken: int
    last: SessionKey | None


@dataclass(frozen=True, slots=True)
class Adoption:
    """A run of adoption: how many sessions it took, and how many of them are in the lobby."""

    run: str
    began_at: datetime
    sessions: int
    remaining: int


class AdoptionStore(Part):
    """What a store can do with sessions of ADK's tables."""

    @operation(together=True)
    def adopt(self, batch: Batch) -> Asking[Result[Examined]]:
        """Examine the sessions that come next by key, and adopt those selected.

        A session that a writer is at work with is left out, and so is one that has a message
        by the time that it is locked. A young one waits for the rest of the TTL since its
        creation; any other is expired and restorable for the whole horizon from now. A writer
        of Lapse that has read a session before can append to it afterwards all the same.
        """
        match (yield from dialect()):
            case Dialect.SQLITE:  # no other writer can come in between: one after the other
                return (yield from self._adopt_each(batch))
            case Dialect.POSTGRES:
                return (yield from self._adopt_locked(batch))

    def _adopt_each(self, batch: Batch) -> Asking[Result[Examined]]:
        examined = yield from rows("orphans", **_selected(batch))
        adopted = list[Row]()
        for row in examined:
            if row["is_orphan"]:
                adopted += yield from self._adopt_one(batch, row)
        for status in {row["status"] for row in adopted}:
            became = [row for row in adopted if row["status"] == status]
            yield from all_counted(became, ChangeKind.ADOPTED, None, status)
        if adopted:
            yield from rows("count_adopted", run=batch.run, sessions=len(adopted))
        last = key_of(examined[-1]) if len(examined) == batch.limit else None
        return Result(Examined(len(examined), last), self._changes(adopted))

    def _adopt_one(self, batch: Batch, row: Row) -> Asking[Sequence[Row]]:
        key, created_at = key_of(row), row["create_time"]
        held = yield from only("events_to_hold", key)
        if held["events"] > HELD_EVENTS or len(held["held_events"]) > HELD_BYTES:
            return ()
        return (
            yield from rows(
                "adopt",
                key,
                run=batch.run,
                created_at=created_at,
                ttl=batch.ttl,
                is_due=self.rules.enforced and created_at + batch.ttl <= row["now"],
                held_events=held["held_events"],
            )
        )

    def _adopt_locked(self, batch: Batch) -> Asking[Result[Examined]]:
        found = yield from first("lock_orphans", **_selected(batch))
        if found is None:
            return Result(Examined(0, None))
        adopted: Sequence[Row] = ()
        if found["session_ids"] is not None:
            adopted = yield from rows(
                "adopt",
                run=batch.run,
                ttl=batch.ttl,
                app_names=found["app_names"],
                user_ids=found["user_ids"],
                session_ids=found["session_ids"],
                with_events=batch.selection.with_events,
                most_events=HELD_EVENTS,
                most_bytes=HELD_BYTES,
            )
        last = key_of(found) if found["examined"] == batch.limit else None
        return Result(Examined(found["examined"], last), self._changes(adopted))

    def _changes(self, adopted: Sequence[Row]) -> Sequence[Change]:
        return [change_of(row, self.rules, ChangeKind.ADOPTED) for row in adopted]

    @operation()
    def put_back(self, run: str, *, after: SessionKey | None, limit: int) -> Asking[PutBack]:
        """Put at most `limit` sessions of a run, those that follow `after`, back as they were.

        To the letter, where nothing changed in the lobby; else as they are now. Left out are
        those that are used, past restoring, or just being written.
        """
        place = after_key(after)
        match (yield from dialect()):
            case Dialect.SQLITE:  # one after the other, as `adopt`
                taken = yield from rows("take_adopted", run=run, limit=limit, **place)
                count = 0
                for row in taken:
                    count += yield from self._put_one_back(run, row)
                return PutBack(count, len(taken), key_of(taken[-1]) if taken else None)
            case Dialect.POSTGRES:
                found = yield from first("put_back", run=run, limit=limit, **place)
                if found is None:
                    return PutBack(0, 0, None)
                return PutBack(found["put_back"], found["taken"], key_of(found))

    def _put_one_back(self, run: str, row: Row) -> Asking[int]:
        key = key_of(row)
        if not (yield from rows("put_back", key, run=run)):
            return 0
        yield from rows("put_back_events", key)
        yield from rows("delete_record", key)
        yield from counted(key, None, row["status"], None)
        return 1

    @operation(writes=False)
    def adoptions(self) -> Asking[Sequence[Adoption]]:
        """Return the runs of adoption, the oldest first."""
        return [
            Adoption(row["run"], row["began_at"], row["sessions"], row["remaining"])
            for row in (yield from rows("adoptions"))
        ]

    @operation()
    def forget_adopted(self) -> Asking[None]:
        """Forget what cannot be put back any more: it is used, or another session has its key."""
        yield from rows("forget_adopted")

    @operation()
    def analyze(self) -> Asking[None]:
        """Have the database's planner look at the tables that adoption makes grow."""
        yield from rows("analyze_lobby")


def _selected(batch: Batch) -> Mapping[str, Any]:
    selection = batch.selection
    return {
        **after_key(batch.after),
        "limit": batch.limit,
        "only_app": selection.app_name,
        "older_than": selection.older_than,
        "since": selection.since,
        "since_prepared": selection.since_prepared,
        "with_state": selection.with_state,
        "with_events": selection.with_events,
    }
