"""The lobby: where a session lives until its first message.

Each transition is one operation, and on PostgreSQL one statement. Statements of other slices ride
in it (`count`, `audit_change`, `observe_…`, `note_artifacts`), and the operation asks for each by
name (`riders.py`). SQLite then runs that rider in the same transaction; on PostgreSQL the rider is
a part of the transition's own statement, and its name is a no-op.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from lapse.core.documents import (
    LARGEST_METADATA,
    StateDelta,
    check_metadata_size,
    merge_state,
    read_object,
    split_state,
)
from lapse.core.errors import (
    OutcomeUnknownError,
    SessionExistsError,
    WrongStatusError,
)
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Change, ChangeKind, Lifecycle, Status, status_of
from lapse.core.messages import UsedBy
from lapse.core.minutes import minutes_of
from lapse.store.archiving import restoring
from lapse.store.lifecycles import changed_before, read_lifecycle, required
from lapse.store.operation import (
    Answer,
    Asking,
    Part,
    confirmed,
    first,
    key_of,
    native,
    only,
    operation,
    rows,
    together,
)
from lapse.store.records import (
    Changes,
    EventWindow,
    Result,
    Revision,
    SessionRecord,
    change_of,
    lifecycle_of,
    shown_of,
)
from lapse.store.riders import all_counted, audited, counted
from lapse.store.shared_state import refuse_without_room, shared_state_changed

_NOTHING: Final = EventWindow(newest=0)


class Lobby(Part):
    """Sessions that wait for their first message, and the record of each session's life.

    Every operation on a session takes its key, and the key holds its user: another user's session
    does not exist for it.

    `by` names who asks for a change. If something changes, the audit log records who did it, in
    the same transaction; see `lapse.audit`.

    A repeat that the first attempt's note tells of changes, counts and records nothing, whatever
    has become of the session since. It returns the session as it is then.
    """

    @operation()
    def create(
        self,
        key: SessionKey,
        *,
        state: StateDelta,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        site: str | None = None,
        used_by: UsedBy = UsedBy.ANYONE,
    ) -> Asking[Result[SessionRecord]]:
        """Create a waiting session; its app and user state take effect at once.

        It replaces an expired session of the same key, restorable or not, whose artifacts go to
        the outbox. `site` is a digest of the client's address, by which quotas count; it is kept
        until the first message. `used_by` says, for good, whose message makes the session used. A
        repeat is recognised by the session that it finds: unchanged, with the same values, and not
        older than the call.

        Raises:
            SessionExistsError: a session of this key lives.
            SharedStateFullError: there is no room for its app or user state.
            OutcomeUnknownError: the store broke off, and a session of this key exists that
                somebody else may have created, or changed since.
        """
        began = time.monotonic()
        before = yield from first("status_before", key)
        made = yield from rows(
            "create",
            key,
            state=json.dumps(state.session),
            app_delta=json.dumps(state.app) if state.app else None,
            user_delta=json.dumps(state.user) if state.user else None,
            ttl=ttl,
            metadata=json.dumps(metadata),
            site=site,
            used_by=used_by,
        )
        if not made and made.in_doubt:
            asked = (ttl, metadata, used_by)
            return (yield from self._created_before(key, state, asked, since=began))
        if not made:
            yield from refuse_without_room(key, state, self.rules)
            raise SessionExistsError(
                f"session {key.named} exists already; use it, or give another id"
            )
        row = made[0]
        was = None if before is None else before["status"]
        yield from counted(key, ChangeKind.CREATED, was, Status.WAITING)
        owes = bool(row["owes_artifacts"])
        if before is not None and self.rules.artifacts:
            yield from rows("note_artifacts", key)
            owes = True
        yield from shared_state_changed(key, state)
        moment: datetime = row["now"]
        record = Lifecycle(
            key=key,
            status=Status.WAITING,
            created_at=moment,
            ttl=ttl,
            expires_at=moment + ttl,
            restorable_until=self.rules.restorable_until(moment, moment + ttl),
            metadata=metadata,
            used_by=used_by,
        )
        merged = merge_state(
            state.session,
            {**read_object(row["app_state"]), **state.app},
            {**read_object(row["user_state"]), **state.user},
        )
        session = SessionRecord(
            key,
            merged,
            Revision(moment, 0),
            owes_artifacts=owes,
            awaits_user=used_by is UsedBy.USER,
        )
        return Result(session, (Change(ChangeKind.CREATED, moment, record),))

    def _created_before(
        self,
        key: SessionKey,
        state: StateDelta,
        asked: tuple[timedelta, Mapping[str, Any], UsedBy],
        *,
        since: float,
    ) -> Asking[Result[SessionRecord]]:
        """Return the session that a broken-off attempt of this same create has made.

        The attempt made it if it is unchanged, has the values that were to be created, and is not
        older than the attempt.

        Raises:
            OutcomeUnknownError: there is no such session.
        """
        found: SessionRecord | None = yield from native("read", key, _NOTHING)
        row = yield from only("lifecycle", key)
        if found is not None and row["status"] == Status.WAITING:
            record = lifecycle_of(row, self.rules)
            age = row["now"] - record.created_at
            if (
                found.revision == Revision(record.created_at, 0)
                and record.status is Status.WAITING
                and (record.ttl, record.metadata, record.used_by) == asked
                and split_state(found.state).session == state.session
                and age.total_seconds() <= time.monotonic() - since
            ):
                # Artifacts may be owed: the outbox knows, and whoever deletes them asks it.
                session = replace(found, owes_artifacts=True)
                change = Change(ChangeKind.CREATED, record.created_at, record)
                return Result(session, (change,))
        raise OutcomeUnknownError(
            f"the connection broke; session {key.named} exists, and another create may have made "
            "it; read it"
        )

    @operation(writes=False)
    def lifecycle(self, key: SessionKey) -> Asking[Lifecycle | None]:
        """Return the record of a session, expired or not; None if the session is unknown."""
        return (yield from read_lifecycle(key, self.rules))

    @operation()
    def amend(
        self,
        key: SessionKey,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        by: str | None = None,
    ) -> Asking[Result[Lifecycle]]:
        """Set top-level keys of the metadata, and give a waiting session a TTL that starts now.

        A repeat is recognised by the note of the first attempt.

        Raises:
            NoSuchSessionError: the session is unknown.
            WrongStatusError: `ttl` is given and the session is not waiting, or Lapse did not
                create the session.
            InvalidValueError: the metadata would exceed its limit.
        """
        act = audited(key, by, ChangeKind.AMENDED, **_amendment(metadata, ttl))
        answer = yield from rows(
            "amend",
            key,
            metadata=None if metadata is None else json.dumps(metadata),
            ttl=ttl,
            largest_metadata=LARGEST_METADATA,
            **act,
        )
        was = status_of(answer[0]["status"]) if answer else None
        changing = self._changed(key, answer, ChangeKind.AMENDED, was, act=act)
        if changed := (yield from changing):
            return changed
        record = yield from required(key, self.rules)
        if record.ttl is not None:
            if ttl is not None and record.status is not Status.WAITING:
                raise _wrong_status(
                    record, "only a waiting session can be given a TTL; send no TTL for it"
                )
            check_metadata_size(json.dumps({**(record.metadata or {}), **(metadata or {})}))
        raise _wrong_status(
            record, "ADK created it, and Lapse has no record of it to change; send it a message"
        )

    @operation()
    def extend(self, key: SessionKey, *, by: str | None = None) -> Asking[Result[Lifecycle]]:
        """Restart the TTL of a waiting session, at most to `rules.extensible` after its creation.

        The deadline never moves nearer. A repeat is recognised by the note of the first attempt.

        Raises:
            NoSuchSessionError: the session is unknown.
            WrongStatusError: the session is not waiting.
        """
        act = audited(key, by, ChangeKind.EXTENDED)
        answer = yield from rows("extend", key, **act)
        changing = self._changed(key, answer, ChangeKind.EXTENDED, Status.WAITING, act=act)
        if changed := (yield from changing):
            return changed
        record = yield from required(key, self.rules)
        raise _wrong_status(
            record, "only a waiting session can be extended; read it to see what it is"
        )

    @operation()
    def resurrect(
        self, key: SessionKey, *, cause: Cause, by: str | None = None
    ) -> Asking[Result[Lifecycle]]:
        """Turn an expired session into a waiting one whose TTL starts now; leave a living one.

        An archived session is restored. A repeat is recognised by the note of the first attempt,
        and one of a restore by the session that it finds in ADK's tables: it changes nothing then.

        Raises:
            NoSuchSessionError: the session is unknown or no longer restorable.
        """
        act = audited(key, by, ChangeKind.RESURRECTED, cause=cause)
        before = yield from first("status_before", key)
        answer = yield from rows("resurrect", key, **act)
        was = None if before is None else before["status"]
        changing = self._changed(key, answer, ChangeKind.RESURRECTED, was, act=act, cause=cause)
        if changed := (yield from changing):
            return changed
        record = yield from required(key, self.rules)
        if record.status is Status.ARCHIVED:
            rules = self.rules
            change = yield from together(key, lambda: restoring(key, rules, cause, by))
            if change is not None:
                return Result(replace(change.record, on_hold=record.on_hold), (change,))
            record = yield from required(key, self.rules)
        yield from confirmed()
        return Result(record)

    @operation()
    def expire(self, key: SessionKey, *, by: str | None = None) -> Asking[Result[Lifecycle]]:
        """Expire a waiting session now, as if its deadline had come; leave an expired one.

        A first message that comes at the same time wins, or resurrects the session. A repeat is
        recognised by the note of the first attempt.

        Raises:
            NoSuchSessionError: the session is unknown.
            WrongStatusError: the session is used or an orphan, or the rules are not enforced.
        """
        act = audited(key, by, ChangeKind.EXPIRED)
        answer = yield from rows("expire", key, **act)
        changing = self._changed(key, answer, ChangeKind.EXPIRED, Status.WAITING, act=act)
        if changed := (yield from changing):
            return changed
        record = yield from required(key, self.rules)
        if record.status is Status.EXPIRED:
            yield from confirmed()
            return Result(record)
        reason = "it must be waiting, and SESSION_CLEANUP_ENABLED true, to be expired"
        raise _wrong_status(record, reason)

    @operation()
    def expire_due(self, limit: int) -> Asking[Result[int]]:
        """Expire at most `limit` waiting sessions that are due, the longest overdue first.

        A due session that ADK's tables hold is marked as used instead (KEPT). The value is the
        number of sessions changed. It does nothing while the rules are not enforced, or while a
        brake is set and nothing is restorable. A repeat expires what is still due.
        """
        if not self.rules.enforced:
            return Result(0)
        found = yield from rows("expire_due", limit=limit)
        kept = [row for row in found if row["status"] == Status.USED]
        expired = [row for row in found if row["status"] == Status.EXPIRED]
        yield from all_counted(kept, ChangeKind.KEPT, Status.WAITING, Status.USED)
        yield from all_counted(expired, ChangeKind.EXPIRED, Status.WAITING, Status.EXPIRED)
        return Result(len(found), Changes(found, self.rules) if found else ())

    @operation()
    def purge_due(self, limit: int) -> Asking[Result[int]]:
        """Delete at most `limit` expired sessions whose `restorable_until` has come.

        The value is their number. It does nothing while the rules are not enforced or a brake is
        set. A repeat deletes what is still due.
        """
        if not self.rules.enforced:
            return Result(0)
        for rider in ("observe_unused", "remember_purged"):  # they read the rows to be deleted
            yield from rows(rider, limit=limit)
        found = yield from rows("purge_due", limit=limit)
        yield from all_counted(found, ChangeKind.PURGED, Status.EXPIRED, None)
        if self.rules.artifacts:
            for row in found:
                yield from rows("note_artifacts", key_of(row))
        return Result(len(found), Changes(found, self.rules, ChangeKind.PURGED) if found else ())

    @operation(writes=False)
    def time_to_next(self) -> Asking[timedelta | None]:
        """Return how long until a sweep has work: zero if it has now, None if nothing is ahead."""
        row = yield from only("time_to_next")
        ahead: timedelta | None = row["ahead"]
        if ahead is None or not self.rules.enforced:
            return None
        return max(timedelta(0), ahead)

    def _changed(
        self,
        key: SessionKey,
        answer: Answer,
        kind: ChangeKind,
        was: str | None,
        *,
        act: Mapping[str, Any],
        cause: Cause | None = None,
    ) -> Asking[Result[Lifecycle] | None]:
        """Finish a transition of one session: count it, and record who asked for it.

        None: the session's state does not allow the transition.
        """
        if not answer:
            return (yield from changed_before(key, answer, self.rules, kind, cause))
        (row,) = answer
        yield from counted(key, kind, was, status_of(row["status"]))
        if act["by"] is not None:
            yield from rows("audit_change", key, **act)
        change = change_of(row, self.rules, kind, cause)
        return Result(shown_of(row, self.rules), (change,))


def _amendment(metadata: Mapping[str, Any] | None, ttl: timedelta | None) -> dict[str, Any]:
    """Return the detail of an amendment: which parts of a record were changed."""
    detail: dict[str, Any] = {} if metadata is None else {"metadata": True}
    return detail if ttl is None else detail | {"ttlMinutes": minutes_of(ttl)}


def _wrong_status(record: Lifecycle, reason: str) -> WrongStatusError:
    return WrongStatusError(f"session {record.key.named} is {record.status}: {reason}")
