"""Moves orphans from ADK's tables into the lobby, and back.

An orphan is a session in ADK's tables that Lapse did not create and that has no message. Adopted,
it waits in the lobby, or is expired and restorable for a whole horizon. An undo puts it back. On
request a session in which only the agent spoke is taken like an orphan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import HELD_BYTES, HELD_EVENTS, ChangeKind, Status
from lapse.core.messages import UsedBy, UsedByRule
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
from lapse.store.riders import all_counted, counted


@dataclass(frozen=True, slots=True)
class Selection:
    """Which orphans to adopt.

    Three kinds are never adopted: sessions of an evaluation, sessions that await an answer (a
    tool's confirmation, a long-running call), and sessions with more events than the lobby holds.

    Attributes:
        app_name: only sessions of this app; None: of all apps.
        older_than: only sessions created at least this long ago.
        since: only sessions created at this time or later; None: at any time.
        since_prepared: only sessions created since Lapse's tables were created.
        with_state: also sessions whose state is not empty.
        with_events: also sessions with events, if none of these is a message.
        with_agent_only: also sessions in which only the agent spoke, whatever their state.
    """

    app_name: str | None = None
    older_than: timedelta = timedelta(0)
    since: datetime | None = None
    since_prepared: bool = False
    with_state: bool = False
    with_events: bool = False
    with_agent_only: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of an adoption.

    Attributes:
        run: the id of the run, which an undo takes.
        selection: the sessions to adopt.
        ttl: the TTL of the adopted sessions, counted from their creation.
        after: the `last` of the batch before; None for the first batch.
        limit: the number of sessions to examine.
        used_by: whose message makes the adopted sessions used. Of a session in which only the
            agent spoke, it is always the user's.
    """

    run: str
    selection: Selection
    ttl: timedelta
    after: SessionKey | None
    limit: int
    used_by: UsedByRule = field(default_factory=UsedByRule)


@dataclass(frozen=True, slots=True)
class Progress:
    """What an adoption or an undo has done: in one batch, or in all batches so far.

    `total += batch` adds the numbers of a batch, and takes over its `last`.

    Attributes:
        examined: the number of sessions examined: by an adoption in ADK's tables, by an undo in
            the lobby.
        waiting: the number of sessions adopted that wait in the lobby.
        expired: the number of sessions adopted that are expired in the lobby.
        put_back: the number of sessions put back into ADK's tables.
        last: the key of the last examined session, after which the next batch begins; None at
            the end.
        remaining: once an undo has ended, the number of sessions that it left in the lobby because
            a writer had them locked or they are no longer restorable.
        gone: once an undo has ended, the number of sessions of the run that were not there any
            more: used, deleted, purged or put back before.
    """

    examined: int = 0
    waiting: int = 0
    expired: int = 0
    put_back: int = 0
    last: SessionKey | None = None
    remaining: int = 0
    gone: int = 0

    @property
    def adopted(self) -> int:
        """Return the number of sessions adopted."""
        return self.waiting + self.expired

    @property
    def in_the_way(self) -> int:
        """Return how many sessions an undo left because ADK has a session of the same key."""
        return self.examined - self.put_back

    def __add__(self, batch: Progress) -> Progress:
        return Progress(
            self.examined + batch.examined,
            self.waiting + batch.waiting,
            self.expired + batch.expired,
            self.put_back + batch.put_back,
            batch.last,
        )


@dataclass(frozen=True, slots=True)
class Adoption:
    """A run of adoption.

    Attributes:
        run: its id.
        began_at: when its first session was adopted.
        sessions: the number of sessions that it adopted.
        remaining: the number of them that are in the lobby and not used.
    """

    run: str
    began_at: datetime
    sessions: int
    remaining: int


class AdoptionStore(Part):
    """Adopts orphans, puts them back, and knows the runs of adoption."""

    @operation(together=True)
    def adopt(self, batch: Batch) -> Asking[Result[Progress]]:
        """Examine the next sessions of ADK's tables by key, and adopt the selected ones.

        The batch is one transaction. A session that a writer has locked is left out, and so is
        one that has a message once it is locked. A session younger than the TTL waits for the
        rest of it; an older one is expired, and restorable for a whole horizon from now. A
        client of Lapse that has read a session before its adoption can still append to it. A
        repeat examines the sessions that are still there, and returns what it adopts itself; the
        run counts all of them.
        """
        match (yield from dialect()):
            case Dialect.SQLITE:  # one writer at a time: session by session is safe
                return (yield from self._adopt_each(batch))
            case Dialect.POSTGRES:
                return (yield from self._adopt_locked(batch))

    def _adopt_each(self, batch: Batch) -> Asking[Result[Progress]]:
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
        return self._result(len(examined), last, adopted)

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
                agent_spoke=held["agent_spoke"],
                used_by=UsedBy.USER if held["agent_spoke"] else batch.used_by.of(key.app_name),
            )
        )

    def _adopt_locked(self, batch: Batch) -> Asking[Result[Progress]]:
        found = yield from first("lock_orphans", **_selected(batch))
        if found is None:
            return Result(Progress())
        adopted: Sequence[Row] = ()
        if found["session_ids"] is not None:
            adopted = yield from rows(
                "adopt",
                run=batch.run,
                ttl=batch.ttl,
                app_names=found["app_names"],
                user_ids=found["user_ids"],
                session_ids=found["session_ids"],
                rules=[batch.used_by.of(app_name) for app_name in found["app_names"]],
                with_events=batch.selection.with_events,
                with_agent_only=batch.selection.with_agent_only,
                most_events=HELD_EVENTS,
                most_bytes=HELD_BYTES,
            )
        last = key_of(found) if found["examined"] == batch.limit else None
        return self._result(found["examined"], last, adopted)

    def _result(
        self, examined: int, last: SessionKey | None, adopted: Sequence[Row]
    ) -> Result[Progress]:
        changes = [change_of(row, self.rules, ChangeKind.ADOPTED) for row in adopted]
        expired = sum(change.record.status is Status.EXPIRED for change in changes)
        return Result(Progress(examined, len(changes) - expired, expired, last=last), changes)

    @operation()
    def put_back(self, run: str, *, after: SessionKey | None, limit: int) -> Asking[Progress]:
        """Put at most `limit` sessions of a run back into ADK's tables, in the order of keys.

        The batch begins after the key `after`, and is one transaction. A session that did not
        change in the lobby is put back exactly as it was, a changed one as it is now. Used
        sessions, sessions that are no longer restorable and sessions that a writer has locked are
        not examined. If ADK has a session of the same key, the adopted one stays in the lobby. A
        repeat puts back what is still in the lobby.
        """
        following = after_key(after)
        match (yield from dialect()):
            case Dialect.SQLITE:  # one writer at a time: session by session is safe
                taken = yield from rows("take_adopted", run=run, limit=limit, **following)
                count = 0
                for row in taken:
                    count += yield from self._put_one_back(run, row)
                last = key_of(taken[-1]) if taken else None
                return Progress(len(taken), put_back=count, last=last)
            case Dialect.POSTGRES:
                found = yield from first("put_back", run=run, limit=limit, **following)
                if found is None:
                    return Progress()
                return Progress(found["taken"], put_back=found["put_back"], last=key_of(found))

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
        """Return the runs of adoption, oldest first."""
        return [
            Adoption(row["run"], row["began_at"], row["sessions"], row["remaining"])
            for row in (yield from rows("adoptions"))
        ]

    @operation()
    def forget_adopted(self) -> Asking[None]:
        """Delete the notes on adopted sessions that are used, or whose key another session has.

        A repeat deletes what is left of them.
        """
        yield from rows("forget_adopted")

    @operation()
    def analyze(self) -> Asking[None]:
        """Bring the planner's statistics of the lobby up to date; a no-op on SQLite.

        A repeat does it again.
        """
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
        "with_agent_only": selection.with_agent_only,
    }
