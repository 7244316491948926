"""A model of a store in memory: a second implementation of the rules.

It shares the vocabulary of `lapse.core.lifecycle` and none of its arithmetic.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from lapse.core.documents import StateDelta
from lapse.core.errors import (
    InvalidValueError,
    NoSuchSessionError,
    OutdatedSessionError,
    SessionExistsError,
    WrongStatusError,
)
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Change, ChangeKind, Lifecycle, Status
from lapse.core.messages import UsedBy
from lapse.store.records import (
    Appended,
    EventRecord,
    LastSeen,
    NewEvent,
    Result,
    Revision,
    SessionRecord,
)

DAY = timedelta(hours=24)
HOUR = timedelta(hours=1)


@dataclass
class Session:
    key: SessionKey
    created_at: datetime
    ttl: timedelta
    expires_at: datetime | None
    metadata: dict[str, Any]
    state: dict[str, Any]
    revision: Revision
    status: Status = Status.WAITING
    events: list[EventRecord] = field(default_factory=list)
    first_message_at: datetime | None = None
    expired_at: datetime | None = None
    restorable_until: datetime | None = None
    resurrections: int = 0
    used_by: UsedBy = UsedBy.ANYONE
    agent_spoke: bool = False


class Model:
    def __init__(self, now: datetime, horizon: timedelta, *, enforced: bool) -> None:
        self.now = now
        self.horizon = horizon
        self.enforced = enforced
        self.sessions: dict[SessionKey, Session] = {}
        self.app: dict[str, dict[str, Any]] = {}
        self.user: dict[tuple[str, str], dict[str, Any]] = {}

    # How a session stands at this moment.

    def _is_past(self, session: Session) -> bool:
        return self.enforced and session.expires_at is not None and session.expires_at <= self.now

    def _end(self, session: Session, expired_at: datetime) -> datetime:
        if not self.horizon:
            return expired_at
        return max(session.created_at + self.horizon, expired_at + HOUR)

    def record(self, key: SessionKey) -> Lifecycle | None:
        session = self.sessions.get(key)
        if session is None:
            return None
        status, expired_at = session.status, session.expired_at
        restorable_until = session.restorable_until
        if status is Status.WAITING:
            restorable_until = self._end(session, session.expires_at)
            if self._is_past(session):
                status, expired_at = Status.EXPIRED, session.expires_at
                restorable_until = self._end(session, self.now)
        if status is Status.EXPIRED and self.enforced and restorable_until <= self.now:
            return None
        return Lifecycle(
            key=key,
            status=status,
            created_at=session.created_at,
            ttl=session.ttl,
            expires_at=session.expires_at,
            first_message_at=session.first_message_at,
            expired_at=expired_at,
            restorable_until=restorable_until,
            resurrections=session.resurrections,
            metadata=dict(session.metadata),
            used_by=session.used_by,
            agent_spoke=session.agent_spoke,
        )

    def _known(self, key: SessionKey) -> tuple[Session, Lifecycle]:
        record = self.record(key)
        if record is None:
            raise NoSuchSessionError
        return self.sessions[key], record

    def _change(self, kind: ChangeKind, key: SessionKey, cause: Cause | None = None) -> Change:
        return Change(kind, self.now, self.record(key), cause)

    # What is read.

    def read(self, key: SessionKey) -> SessionRecord | None:
        record = self.record(key)
        if record is None or (record.status is Status.EXPIRED and self.enforced):
            return None
        session = self.sessions[key]
        state = dict(session.state)
        state |= {f"app:{name}": value for name, value in self.app.get(key.app_name, {}).items()}
        outer = self.user.get(key[:2], {})
        state |= {f"user:{name}": value for name, value in outer.items()}
        events = sorted(session.events, key=lambda event: (event.timestamp, event.id))
        awaits = session.used_by is UsedBy.USER and session.status is not Status.USED
        return SessionRecord(key, state, session.revision, tuple(events), awaits_user=awaits)

    def listed(self, app: str, user: str | None) -> list[SessionRecord]:
        found = [
            SessionRecord(one.key, one.state, one.revision)
            for key in self.sessions
            if key.app_name == app and user in {None, key.user_id} and (one := self.read(key))
        ]
        return sorted(found, key=lambda one: (one.revision.update_time, *one.key[1:]))

    def deadlines(self) -> list[datetime]:
        return sorted(
            session.restorable_until if session.status is Status.EXPIRED else session.expires_at
            for session in self.sessions.values()
            if session.status is not Status.USED
        )

    def time_to_next(self) -> timedelta | None:
        deadlines = self.deadlines()
        if not deadlines or not self.enforced:
            return None
        return max(deadlines[0] - self.now, timedelta(0))

    def levels(self) -> dict[tuple[str, Status], int]:
        return Counter((key.app_name, one.status) for key, one in self.sessions.items())

    def agent_only(self) -> dict[str, int]:
        return Counter(
            key.app_name
            for key, one in self.sessions.items()
            if one.agent_spoke and one.status is Status.WAITING
        )

    # What is asked for.

    def create(
        self,
        key: SessionKey,
        state: StateDelta,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        used_by: UsedBy,
    ) -> Change:
        record = self.record(key)
        if record is not None and (record.status is not Status.EXPIRED or not self.enforced):
            raise SessionExistsError
        self.sessions[key] = Session(
            key,
            self.now,
            ttl,
            self.now + ttl,
            dict(metadata),
            dict(state.session),
            Revision(self.now, 0),
            used_by=used_by,
        )
        self._update_outer(key, state)
        return self._change(ChangeKind.CREATED, key)

    def _update_outer(self, key: SessionKey, delta: StateDelta) -> None:
        self.app.setdefault(key.app_name, {}).update(delta.app)
        self.user.setdefault(key[:2], {}).update(delta.user)

    def append(self, key: SessionKey, event: NewEvent, seen: Revision | LastSeen) -> Result:
        session, record = self._known(key)
        is_gone = record.status is Status.EXPIRED and self.enforced
        is_words = event.by_agent and session.used_by is UsedBy.USER
        if is_gone and not event.is_message and not is_words:
            raise NoSuchSessionError
        stored = next((one for one in session.events if one.id == event.record.id), None)
        if stored is not None:
            if stored != event.record:
                raise InvalidValueError("event id", "is another event's")
            is_newest = session.events[-1].id == stored.id
            return Result(Appended(session.revision if is_newest else None, repeated=True))
        if not self._has_seen(session, seen):
            raise OutdatedSessionError
        session.events.append(event.record)
        session.state |= event.delta.session
        session.revision = Revision(event.record.timestamp, session.revision.number + 1)
        self._update_outer(key, event.delta)
        if is_words and session.status is not Status.USED:
            return Result(Appended(session.revision), self._hear_agent(session, event, is_gone))
        if not event.is_message or session.status is Status.USED:
            return Result(Appended(session.revision))
        changes = self._mark_used(session, was_expired=is_gone)
        return Result(Appended(session.revision), changes)

    @staticmethod
    def _has_seen(session: Session, seen: Revision | LastSeen) -> bool:
        if isinstance(seen, Revision) and seen.number is not None:
            return seen == session.revision
        return seen.update_time == session.revision.update_time

    def _hear_agent(self, session: Session, event: NewEvent, was_expired: bool) -> tuple:  # noqa: FBT001
        fresh = self.now + session.ttl
        session.expires_at = fresh if was_expired else max(session.expires_at, fresh)
        session.status, session.expired_at, session.restorable_until = Status.WAITING, None, None
        session.resurrections += was_expired
        session.agent_spoke |= event.is_message
        resurrected = self._change(ChangeKind.RESURRECTED, session.key, Cause.RUN)
        return (resurrected,) if was_expired else ()

    def hold_off(self, keys: Iterable[SessionKey], held_for: timedelta) -> set[SessionKey]:
        held = set()
        for key in keys:
            record = self.record(key)
            waits = record is not None and (record.status is Status.WAITING)
            if waits and record.used_by is UsedBy.USER:
                session = self.sessions[key]
                session.expires_at = max(session.expires_at, self.now + held_for)
                held.add(key)
        return held

    def restart_ttl(self, key: SessionKey, held_for: timedelta) -> Result:
        if not self.hold_off([key], timedelta(0)):
            return Result(None)
        session, fresh = self.sessions[key], self.now + self.sessions[key].ttl
        of_hold = session.expires_at <= self.now + held_for
        session.expires_at = fresh if of_hold else max(session.expires_at, fresh)
        return Result(None, (self._change(ChangeKind.EXTENDED, key),))

    def _mark_used(self, session: Session, *, was_expired: bool) -> tuple[Change, ...]:
        session.status, session.first_message_at = Status.USED, self.now
        session.expires_at = session.expired_at = session.restorable_until = None
        session.resurrections += was_expired
        used = self._change(ChangeKind.USED, session.key)
        if not was_expired:
            return (used,)
        return (self._change(ChangeKind.RESURRECTED, session.key, Cause.MESSAGE), used)

    def delete(self, key: SessionKey) -> Result:
        record = self.record(key)
        self.sessions.pop(key, None)
        gone = () if record is None else (Change(ChangeKind.DELETED, self.now, record),)
        return Result(None, gone)

    def extend(self, key: SessionKey) -> Result:
        session, record = self._known(key)
        if record.status is not Status.WAITING:
            raise WrongStatusError
        farthest = session.created_at + (self.horizon or DAY)
        session.expires_at = max(session.expires_at, min(self.now + session.ttl, farthest))
        return Result(self.record(key), (self._change(ChangeKind.EXTENDED, key),))

    def amend(
        self, key: SessionKey, metadata: Mapping[str, Any] | None, ttl: timedelta | None
    ) -> Result:
        session, record = self._known(key)
        if ttl is not None:
            if record.status is not Status.WAITING:
                raise WrongStatusError
            session.ttl, session.expires_at = ttl, self.now + ttl
        session.metadata |= metadata or {}
        return Result(self.record(key), (self._change(ChangeKind.AMENDED, key),))

    def resurrect(self, key: SessionKey, cause: Cause) -> Result:
        session, record = self._known(key)
        if record.status is not Status.EXPIRED:
            return Result(record)
        session.status, session.expires_at = Status.WAITING, self.now + session.ttl
        session.expired_at = session.restorable_until = None
        session.resurrections += 1
        return Result(self.record(key), (self._change(ChangeKind.RESURRECTED, key, cause),))

    # What a sweep does. Of several that are equally overdue, a store may take any.

    def due(self, status: Status) -> list[tuple[datetime, SessionKey]]:
        if not self.enforced:
            return []
        found = (
            (one.expires_at if status is Status.WAITING else one.restorable_until, key)
            for key, one in self.sessions.items()
            if one.status is status
        )
        return sorted(two_stores for two_stores in found if two_stores[0] <= self.now)

    def expire(self, keys: Iterable[SessionKey]) -> set[SessionKey]:
        for key in keys:
            session = self.sessions[key]
            session.status, session.expired_at = Status.EXPIRED, self.now
            session.restorable_until = self._end(session, self.now)
        return set(keys)

    def purge(self, keys: Iterable[SessionKey]) -> None:
        for key in keys:
            del self.sessions[key]
