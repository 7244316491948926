"""Conversations: the sessions that ADK sees, with their events and their state.

Waiting sessions live in the lobby, used ones in ADK's own tables. Each dialect has its own code
for reading and appending in one transaction, whichever of the two holds the session.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from lapse.core.errors import (
    EventIdTakenError,
    no_such_session,
    outdated,
)
from lapse.core.keys import SessionKey, shortened
from lapse.core.lifecycle import Change, ChangeKind, Lifecycle, Status
from lapse.core.messages import UsedBy
from lapse.store.archiving import appending_restored, refuse_if_held, was_archived
from lapse.store.lifecycles import lifecycle_in, read_lifecycle
from lapse.store.operation import (
    Asking,
    Part,
    Row,
    as_first_seen,
    confirmed,
    first,
    native,
    only,
    operation,
    rows,
    together,
)
from lapse.store.records import (
    Appended,
    EventWindow,
    LastSeen,
    NewEvent,
    Result,
    Revision,
    SessionRecord,
    lifecycle_of,
)
from lapse.store.riders import audited, counted
from lapse.store.shared_state import refuse_without_room


class _Seen(NamedTuple):
    """A session that is to be deleted: its record, and its creation in the lobby and for ADK."""

    record: Lifecycle | None
    created_at: datetime | None
    create_time: datetime | None
    at: datetime


def _revives(event: NewEvent, record: Lifecycle) -> bool:
    """Return whether an event brings its session back if that has expired."""
    return event.is_message or (event.by_agent and record.used_by is UsedBy.USER)


class Conversations(Part):
    """Sessions that ADK sees, with their events and their state."""

    @operation(writes=False)
    def read(
        self, key: SessionKey, window: EventWindow = EventWindow()
    ) -> Asking[SessionRecord | None]:
        """Return one session from one snapshot; None if it is unknown or expired."""
        found: SessionRecord | None = yield from native("read", key, window)
        return found

    @operation(writes=False)
    def list(self, app_name: str, user_id: str) -> Asking[Sequence[SessionRecord]]:
        """Return a user's sessions, without events.

        Ascending by (update_time, user_id, session_id), from one snapshot.
        """
        key = SessionKey(app_name, user_id, "")
        found: Sequence[SessionRecord] = yield from native("list_of_user", key)
        return found

    @operation(writes=False)
    def list_of_all_users(self, app_name: str) -> Asking[Sequence[SessionRecord]]:
        """Return the sessions of all users of an app, without events.

        Ascending by (update_time, user_id, session_id), from one snapshot. This is the only read
        of sessions that names no user: it is for callers who may see all of them.
        """
        found: Sequence[SessionRecord] = yield from native(
            "list_of_app", SessionKey(app_name, "", "")
        )
        return found

    @operation(writes=False)
    def user_state(self, app_name: str, user_id: str) -> Asking[dict[str, Any]]:
        """Return a user's state; its keys have no `user:` prefix."""
        row = yield from first("read_user_state", SessionKey(app_name, user_id, ""))
        return {} if row is None else json.loads(row["state"] or "{}")

    @operation()
    def append(
        self, key: SessionKey, event: NewEvent, seen: Revision | LastSeen
    ) -> Asking[Result[Appended]]:
        """Append one event and apply its change of state.

        The first message moves the session, with the events held so far, into ADK's tables. It
        resurrects the session if that has expired and is restorable. Any other event of a waiting
        session is held in the lobby, up to HELD_EVENTS and HELD_BYTES; an event beyond these counts
        as a first message if its `may_use` allows that.

        Where only the user's message makes a session used, what the agent says is held like that.
        It gives the session a fresh TTL, and an expired session waits again.

        Any event brings an archived session back, in the same transaction.

        An event that is stored already with the same data is not stored again: a repeat is
        recognised by the event's id.

        Raises:
            NoSuchSessionError: the session is unknown, deleted or expired.
            OutdatedSessionError: the session changed since `seen`.
            SharedStateFullError: there is no room for what it changes of app or user state.
            HeldEventsFullError: the session can hold no more, and the event may not use it.
            InvalidValueError: another event with this id is stored.
            OutcomeUnknownError: the store broke off, and the event may be stored.
        """
        return (yield from self.appending(key, event, seen))

    def appending(
        self, key: SessionKey, event: NewEvent, seen: Revision | LastSeen
    ) -> Asking[Result[Appended]]:
        """Append as `append` does, as a part of another operation."""
        appended: Result[Appended] | None = yield from native("append", key, event, seen)
        if appended is None and (yield from was_archived(key)):
            rules = self.rules
            appended = yield from together(key, lambda: appending_restored(key, event, seen, rules))
            if appended is None:  # somebody else has restored it
                appended = yield from native("append", key, event, seen)
        if appended is not None:
            return appended
        return Result((yield from self.not_appended(key, event, seen)))

    def not_appended(
        self, key: SessionKey, event: NewEvent, seen: Revision | LastSeen
    ) -> Asking[Appended]:
        """Find out why nothing was appended: the event is stored, the session gone or changed."""
        new = event.record
        row = yield from only("read_appended", key, event_id=new.id, event_data=new.data)
        if not row["is_stored"]:
            record = yield from read_lifecycle(key, self.rules)
            if record is None or (record.status is Status.EXPIRED and not _revives(event, record)):
                raise no_such_session(key.named)
        if row["is_same"] is None:
            yield from refuse_without_room(key, event.delta, self.rules)
            raise outdated(key.named)
        if not row["is_same"]:
            reason = f"{shortened(new.id)} is the id of another event of this session; use a new id"
            raise EventIdTakenError("event id", reason)
        yield from confirmed()
        stored = Revision(row["update_time"], row["revision"])
        seen_number = seen.number if isinstance(seen, Revision) else None
        is_next = seen_number is None or stored.number in {seen_number, seen_number + 1}
        is_newest = stored.update_time == new.timestamp
        return Appended(stored if is_newest and is_next else None, repeated=True)

    @operation(together=True)
    def delete(self, key: SessionKey, *, by: str | None = None) -> Asking[Result[None]]:
        """Delete a session of any status, with its events and runs.

        There is no change if the session did not exist or was no longer restorable. A repeat is
        recognised by the creation of the session that the call has seen first: it never deletes
        another session that has the key since.

        Raises:
            WrongStatusError: the session is on hold.
        """
        yield from refuse_if_held(key)
        row = yield from only("lifecycle", key)
        last = yield from lifecycle_in(row, key, self.rules)
        now_seen = _Seen(last, row["created_at"], row["create_time"], row["now"])
        seen = yield from as_first_seen(now_seen)
        yield from rows("observe_withdrawn", key)
        # The record goes first because an append locks it first, too.
        created = {"seen_created_at": seen.created_at, "seen_create_time": seen.create_time}
        records = yield from rows("delete_record", key, **created)
        session = yield from first("delete_session", key, **created)
        if not records and session is None:
            yield from refuse_if_held(key)  # it was put on hold meanwhile
            yield from confirmed()
            if seen.record is None or not records.in_doubt:
                return Result(None)
            return Result(None, (Change(ChangeKind.DELETED, seen.at, seen.record),))
        yield from rows("delete_runs", key)
        record = records[0] if records else None
        if record is not None and record["status"] == Status.ARCHIVED:
            yield from rows("delete_archived", key)
        if self.rules.artifacts:
            yield from rows("note_artifacts", key)
        gone = self._deleted(seen.record, record, session)
        if record is not None and record["status"] != Status.USED:
            kind = None if gone is None else ChangeKind.DELETED
            yield from counted(key, kind, record["status"], None)
        if gone is None:
            return Result(None)
        if by is not None:
            act = audited(key, by, ChangeKind.DELETED, status=gone.record.status)
            yield from rows("record_act", key, **act)
        return Result(None, (gone,))

    def _deleted(
        self, seen: Lifecycle | None, record: Row | None, session: Row | None
    ) -> Change | None:
        """Return the change that deleting a session's rows made; None if there was no session."""
        if record is None:
            if seen is None or session is None:
                return None
            return Change(ChangeKind.DELETED, session["now"], seen)
        rules, last = self.rules, lifecycle_of(record, self.rules)
        # The record can outlive a used session that others deleted from ADK's tables.
        was_gone = last.status is Status.USED and session is None
        if was_gone or not rules.still_stands(last, record["now"]):
            return None
        return Change(ChangeKind.DELETED, record["now"], last)
