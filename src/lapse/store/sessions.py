"""The Store protocol: what every store does, and what its callers may rely on.

A store keeps sessions in the lobby until their first message and in ADK's own tables from
then on. One method is one transition is one transaction: when it returns, its effect is
durable; when it raises, nothing was written. Time is the store's own clock and half-open:
live means `now < expires_at`, due means `expires_at <= now`. `now` is passed by tests only.

Stores speak plain data. They hold no rules: those stand in `lapse.core.lifecycle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, Self

from lapse.adoption.store import AdoptingStore
from lapse.audit.store import Audited
from lapse.check.store import Inspected
from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Change, Lifecycle, Rules
from lapse.notices.store import Watchable
from lapse.overview.store import Operated
from lapse.quotas.rules import Limiting
from lapse.runs.store import RunStore
from lapse.ttl.store import Observations

_WAITING: Final = "w"


@dataclass(frozen=True, slots=True)
class Revision:
    """The exact version of a stored session.

    `update_time` moves with every append, ADK's own included; `number` counts the appends
    made through Lapse, so that two events of one timestamp still make two revisions. It is
    None where it is not known: a session that stock ADK has read. `waiting` is a hint: the
    session was in the lobby, so the store need not look for it elsewhere first.
    """

    update_time: datetime
    number: int | None
    waiting: bool = field(default=False, compare=False)

    @property
    def marker(self) -> str:
        """Return it as text, in the place where ADK keeps its own marker."""
        stamp = self.update_time.replace(tzinfo=None).isoformat(timespec="microseconds")
        if self.number is None:
            return stamp
        return f"{stamp}|{self.number}{_WAITING if self.waiting else ''}"

    @classmethod
    def parse(cls, marker: str) -> Revision:
        """Read a marker, Lapse's or ADK's; ValueError when it is neither."""
        stamp, bar, number = marker.partition("|")
        update_time = datetime.fromisoformat(stamp).replace(tzinfo=UTC)
        count = int(number.removesuffix(_WAITING)) if bar else None
        return cls(update_time, count, waiting=number.endswith(_WAITING))


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What is known of a session that carries no revision, such as one read back from JSON."""

    update_time: datetime
    last_event_id: str | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event as stored: `data` is the JSON text of the whole event."""

    id: str
    invocation_id: str
    timestamp: datetime
    data: str


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append, the change of state it carries, and whether it is a message."""

    record: EventRecord
    delta: StateDelta
    is_message: bool


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as stored, with the state of all three scopes merged.

    `events` are in ADK's order: ascending by timestamp, then id.
    """

    key: SessionKey
    state: dict[str, Any]
    revision: Revision
    events: Sequence[EventRecord] = ()


@dataclass(frozen=True, slots=True)
class EventWindow:
    """Which events to read: those at `after` or later, then the newest `newest` of them."""

    newest: int | None = None
    after: datetime | None = None

    def of(self, events: Iterable[EventRecord]) -> list[EventRecord]:
        """Return those of `events`, in ADK's order."""
        after = self.after
        kept = [event for event in events if after is None or event.timestamp >= after]
        kept.sort(key=lambda event: (event.timestamp, event.id))
        return kept if self.newest is None else kept[max(0, len(kept) - self.newest) :]


@dataclass(frozen=True, slots=True)
class Created:
    """A new session and the change that made it."""

    session: SessionRecord
    change: Change


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome of an append.

    `revision` is the session's after it. It is None for an event that had been stored
    before and was followed by others since: what the writer holds is then outdated.
    `repeated` tells that the event was stored before.
    """

    revision: Revision | None
    changes: tuple[Change, ...] = ()
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A session's record after a request, and the change if the request made one."""

    record: Lifecycle
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Swept:
    """What one batch of a sweep did: the rows that it took, and how each reads as a change.

    Reading them takes longer than taking them, so it can be done a few at a time.
    """

    rows: Sequence[Any] = ()
    read: Callable[[Any], Change] = field(default=lambda change: change)

    @property
    def taken(self) -> int:
        """Return how many due rows it took."""
        return len(self.rows)

    @property
    def changes(self) -> tuple[Change, ...]:
        """Return all of its changes."""
        return tuple(map(self.read, self.rows))

    def portions(self, size: int) -> Iterator[list[Change]]:
        """Read its changes, `size` at a time."""
        for start in range(0, len(self.rows), size):
            yield [self.read(row) for row in self.rows[start : start + size]]


class Store(
    RunStore,
    Watchable,
    Observations,
    AdoptingStore,
    Audited,
    Inspected,
    Limiting,
    Operated,
    Protocol,
):
    """Where sessions live, and the records of their runs.

    Whatever reads or changes a session takes its key, and the key holds its owner: a session
    of somebody else's is one that does not exist.

    `by` is who asks for a change: when it changes something, that is recorded with it, in the
    same transaction; see `lapse.audit.store`.

    Every method may raise StoreUnavailableError: the store does not answer, nothing is
    known to have been written, and the call may be repeated.
    """

    @property
    def rules(self) -> Rules:
        """Return what this store enforces."""
        ...

    def at(self, now: datetime) -> Self:
        """Return this store with a clock that stands at `now`: for tests alone.

        The two are one store in all else: what opens or closes one opens or closes the other.
        `inspect` goes by the real clock with both.
        """
        ...

    async def open(self) -> None:
        """Connect and bring the schema up to date; a second call does nothing.

        Raises:
            StoreRefusedError: it is foreign, of another version, or cannot be written.
        """
        ...

    async def pending_migration(self) -> str:
        """Return the SQL that `open` would run to make the store ready; empty when it is.

        Raises:
            StoreRefusedError: as `open`.
        """
        ...

    def hints(self, nearer: Callable[[timedelta], None]) -> AbstractAsyncContextManager[None]:
        """Call `nearer` with the time left when another process makes a deadline that is near.

        Only a hint, inside the context: it may come late or never, where the store, or what
        stands in between, has no way to tell.
        """
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of every resource; a second call does nothing."""
        ...

    async def ping(self) -> None:
        """Return when the store can be read and written."""
        ...

    async def create(
        self,
        key: SessionKey,
        *,
        state: StateDelta,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        site: str | None = None,
    ) -> Created:
        """Create a waiting session in the lobby; its app and user state take effect at once.

        An expired session of the same key gives way, restorable or not. `site` tells where it
        was asked for; it is kept until the first message.

        Raises:
            SessionExistsError: a session of this key lives.
        """
        ...

    async def read(
        self, key: SessionKey, window: EventWindow = EventWindow()
    ) -> SessionRecord | None:
        """Return one session from one snapshot; None where it is unknown or expired."""
        ...

    async def list(self, app_name: str, user_id: str) -> Sequence[SessionRecord]:
        """Return a user's sessions, without events.

        Ascending by (update_time, user_id, session_id), from one snapshot.
        """
        ...

    async def list_of_all_users(self, app_name: str) -> Sequence[SessionRecord]:
        """Return every user's sessions, as `list` does.

        The only read of sessions that names no owner: for those who may see all.
        """
        ...

    async def append(self, key: SessionKey, event: NewEvent, seen: Revision | Glimpse) -> Appended:
        """Append one event with its change of state.

        The first message moves the session, with the events held so far, into ADK's tables;
        where the session had expired and is restorable it is resurrected by it. Any other
        event of a waiting session is held in the lobby, up to HELD_EVENTS and HELD_BYTES.
        An event that is stored already, the same to the letter, is not stored again.

        Raises:
            NoSuchSessionError: unknown, deleted, or expired and not to be had back.
            OutdatedSessionError: the session changed since `seen`.
            InvalidValueError: another event with this id is stored.
        """
        ...

    async def delete(self, key: SessionKey, *, by: str | None = None) -> Change | None:
        """Delete a session in whatever status, with its events; None where there was none."""
        ...

    async def user_state(self, app_name: str, user_id: str) -> dict[str, Any]:
        """Return a user's state, its keys without their prefix."""
        ...

    async def lifecycle(self, key: SessionKey) -> Lifecycle | None:
        """Return a session's record, of an expired one too; None where it is unknown."""
        ...

    async def amend(
        self,
        key: SessionKey,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        by: str | None = None,
    ) -> Outcome:
        """Merge metadata by its top-level keys, and give a waiting session a TTL from now.

        Raises:
            NoSuchSessionError: unknown.
            WrongStatusError: `ttl` for a session that is not waiting, or anything for one
                that Lapse did not create.
            InvalidValueError: the metadata would grow over its limit.
        """
        ...

    async def extend(self, key: SessionKey, *, by: str | None = None) -> Outcome:
        """Give a waiting session a fresh TTL, up to `rules.extensible` from its creation.

        A deadline never comes nearer by it.

        Raises:
            NoSuchSessionError: unknown.
            WrongStatusError: it is not waiting.
        """
        ...

    async def resurrect(self, key: SessionKey, *, cause: Cause, by: str | None = None) -> Outcome:
        """Turn an expired session into a waiting one with a fresh TTL; a living one is left.

        Raises:
            NoSuchSessionError: unknown, or no longer restorable.
        """
        ...

    async def expire(self, key: SessionKey, *, by: str | None = None) -> Outcome:
        """Expire a waiting session now, as at its deadline; an expired one is left.

        A first message that comes at the same time wins, or resurrects it.

        Raises:
            NoSuchSessionError: unknown.
            WrongStatusError: it is used or an orphan, or the rules are not enforced.
        """
        ...

    async def expire_due(self, limit: int) -> Swept:
        """Expire at most `limit` waiting sessions that are due, the longest overdue first.

        A due session that ADK's tables hold is marked as used instead (KEPT).
        Nothing while the rules are not enforced.
        """
        ...

    async def purge_due(self, limit: int) -> Swept:
        """Delete at most `limit` expired sessions whose `restorable_until` has come.

        Nothing while the rules are not enforced.
        """
        ...

    async def time_to_next(self) -> timedelta | None:
        """Return how long until a sweep has work, zero when it has; None: nothing ahead."""
        ...
