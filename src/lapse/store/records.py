"""The plain data that a store takes and returns; none of it is a class of ADK's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar, overload

from lapse.core.documents import StateDelta, read_metadata
from lapse.core.errors import HeldEventsFullError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import (
    HELD_BYTES,
    HELD_EVENTS,
    Cause,
    Change,
    ChangeKind,
    Lifecycle,
    Rules,
    Status,
    status_of,
)
from lapse.core.messages import UsedBy, is_message
from lapse.store.operation import Row, key_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """The result of a transition: its value, and the changes that it committed, in order."""

    value: T
    changes: Sequence[Change] = ()


@dataclass(frozen=True, slots=True)
class Revision:
    """The exact version of a stored session.

    `update_time` moves with every append, also with one of stock ADK. `number` counts the appends
    made through Lapse, so that two events of one timestamp still make two revisions; it is None
    if it is not known, because stock ADK has read the session. `waiting` is a hint of the writer
    that the session is in the lobby: the store looks there first. It is no part of the version.
    """

    update_time: datetime
    number: int | None
    waiting: bool = field(default=False, compare=False)

    @property
    def marker(self) -> str:
        """Return the revision as text, which stands where ADK keeps its own marker."""
        stamp = self.update_time.replace(tzinfo=None).isoformat(timespec="microseconds")
        if self.number is None:
            return stamp
        return f"{stamp}|{self.number}"

    @classmethod
    def parse(cls, marker: str) -> Revision:
        """Read a marker, Lapse's or ADK's; ValueError if it is neither."""
        stamp, bar, number = marker.partition("|")
        update_time = datetime.fromisoformat(stamp).replace(tzinfo=UTC)
        return cls(update_time, int(number) if bar else None)


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The version of a session object without a revision, such as one read back from JSON."""

    update_time: datetime
    last_event_id: str | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event as stored: `data` is the JSON text of the whole event."""

    id: str
    invocation_id: str
    timestamp: datetime
    data: str


class JoinedEvents(Sequence[EventRecord]):
    """The events of a session, read as one text, which is split when an event is asked for.

    Reading them as one value is faster than row by row, and whoever has seen the same text before
    need not split it: events of the same text are the same events.

    Attributes:
        text: all columns of all events, in a form that only `split` knows.
    """

    __slots__ = ("_records", "_split", "text")

    def __init__(self, text: bytes, split: Callable[[bytes], Sequence[EventRecord]]) -> None:
        self.text = text
        self._split = split
        self._records: Sequence[EventRecord] | None = None

    @property
    def records(self) -> Sequence[EventRecord]:
        """Return the events, in ADK's order."""
        if self._records is None:
            self._records = self._split(self.text)
        return self._records

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, place: int) -> EventRecord: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[EventRecord]: ...

    def __getitem__(self, place: int | slice) -> EventRecord | Sequence[EventRecord]:
        return self.records[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append, and what it means for its session.

    Attributes:
        record: the event.
        delta: the change of state that it carries.
        is_message: whether it makes a session used, where anyone's message does.
        may_use: what becomes of an event that makes no session used and that a waiting session can
            hold no more: with it the session counts as used, without it the event is refused.
        by_agent: whether it is the agent's: it makes no session used where only the user's
            message does.
    """

    record: EventRecord
    delta: StateDelta
    is_message: bool
    may_use: bool = True
    by_agent: bool = False


def held_events_full(key: SessionKey) -> HeldEventsFullError:
    """Return the error that refuses an event which a waiting session can hold no more."""
    return HeldEventsFullError(
        f"session {key.named} waits for its first message, and until then holds at most "
        f"{HELD_EVENTS} changes, of {HELD_BYTES} bytes together (a fixed limit while "
        "LAPSE_WAITING_PER_USER or LAPSE_WAITING_PER_ADDRESS limits waiting sessions); send one "
        "first"
    )


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as stored, with the state of all three scopes merged.

    `events` are in ADK's order: ascending by timestamp, then id. `owes_artifacts` tells of a new
    session that artifacts of an earlier session of its key are still to be deleted. `awaits_user`
    tells of one that waits, and that only the user's message makes used; lists do not tell it.
    """

    key: SessionKey
    state: dict[str, Any]
    revision: Revision
    events: Sequence[EventRecord] = ()
    owes_artifacts: bool = False
    awaits_user: bool = False


@dataclass(frozen=True, slots=True)
class EventWindow:
    """Which events to read: of those at `after` or later, the newest `newest`; None: all."""

    newest: int | None = None
    after: datetime | None = None

    def of(self, events: Iterable[EventRecord]) -> list[EventRecord]:
        """Return the events that are in the window, in ADK's order."""
        after = self.after
        kept = [event for event in events if after is None or event.timestamp >= after]
        kept.sort(key=lambda event: (event.timestamp, event.id))
        return kept if self.newest is None else kept[max(0, len(kept) - self.newest) :]


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome of an append.

    `revision` is the session's revision after the append. It is None if the event was stored
    before and others have followed it: the writer's session is then outdated. `repeated` is True
    if the event was stored before.
    """

    revision: Revision | None
    repeated: bool = False


class Changes(Sequence[Change]):
    """The changes of many rows; a `Change` is made when it is read.

    Making them takes longer than the statement that changed the rows, so a caller can read a few
    at a time.
    """

    def __init__(self, found: Sequence[Row], rules: Rules, kind: ChangeKind | None = None) -> None:
        """Take lobby rows after a change of this kind; without it, the row's status tells it."""
        self._found = found
        self._rules = rules
        self._kind = kind

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, place: int) -> Change: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Change]: ...

    def __getitem__(self, place: int | slice) -> Change | Sequence[Change]:
        if isinstance(place, slice):
            return [self._change(row) for row in self._found[place]]
        return self._change(self._found[place])

    def _change(self, row: Row) -> Change:
        return change_of(row, self._rules, self._kind or _SWEPT[Status(row["status"])])


_SWEPT: Final = {Status.USED: ChangeKind.KEPT, Status.EXPIRED: ChangeKind.EXPIRED}
"""What a sweep did to a due session, by the session's new status."""


def change_of(row: Row, rules: Rules, kind: ChangeKind, cause: Cause | None = None) -> Change:
    """Return the change of this kind that left a lobby row as it is."""
    return Change(kind, row["now"], lifecycle_of(row, rules), cause)


def lifecycle_of(row: Row, rules: Rules) -> Lifecycle:
    """Return the record of a lobby row, as it reads at the moment of its statement."""
    record = Lifecycle(
        key=key_of(row),
        status=status_of(row["status"]),
        created_at=row["created_at"],
        ttl=row["ttl"],
        expires_at=row["expires_at"],
        first_message_at=row["first_message_at"],
        expired_at=row["expired_at"],
        restorable_until=row["restorable_until"],
        resurrections=row["resurrections"],
        metadata=read_metadata(row["metadata"]),
        used_by=UsedBy(row["used_by"]),
        agent_spoke=bool(row["agent_spoke"]),
        archived_at=row["archived_at"],
        pinned=row["pinned_at"] is not None,
    )
    # Only a waiting row can be out of date: its deadline may have passed without a sweep.
    return rules.as_it_reads(record, row["now"]) if record.status is Status.WAITING else record


def shown_of(row: Row, rules: Rules) -> Lifecycle:
    """Return the record of a lobby row that also tells whether the session is on hold."""
    record = lifecycle_of(row, rules)
    return replace(record, on_hold=True) if row["is_held"] else record


def orphan_of(
    key: SessionKey, create_time: datetime, events: Iterable[Row], *, on_hold: bool
) -> Lifecycle:
    """Return the record of a session that Lapse did not create.

    The session is used if one of its events is a message, else an orphan.
    """
    first = next((e for e in events if is_message(json.loads(e["event_data"] or "{}") or {})), None)
    return Lifecycle(
        key=key,
        status=Status.ORPHAN if first is None else Status.USED,
        created_at=create_time,
        first_message_at=None if first is None else first["timestamp"],
        metadata={},
        on_hold=on_hold,
    )
