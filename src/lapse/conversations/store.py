"""The lobby's steps of the hand-over, each one statement that a fencing token guards."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lapse.conversations.places import PlaceStore
from lapse.conversations.rules import HandOver, Token
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import (
    Cause,
    Change,
    ChangeKind,
    OnItsWay,
    Status,
    status_of,
)
from lapse.store.conversations import Conversations
from lapse.store.operation import (
    Answer,
    Asking,
    Part,
    Row,
    as_first_seen,
    first,
    key_of,
    native,
    operation,
    rows,
)
from lapse.store.records import (
    Appended,
    EventRecord,
    LastSeen,
    NewEvent,
    Result,
    Revision,
    change_of,
    lifecycle_of,
)
from lapse.store.riders import audited, counted

_IN_LOBBY: Final = (Status.WAITING, Status.EXPIRED)


class HandOverStore(PlaceStore, Part):
    """Sessions on their way to another service, and back out of it.

    A step that names a token changes nothing if somebody has taken the hand-over over since, and
    its result says so. Whoever takes a session brings a new fence, by which a repeat recognises
    what the first attempt has done, so it returns the same.
    """

    @operation()
    def hold(
        self, key: SessionKey, event: NewEvent, seen: Revision | LastSeen
    ) -> Asking[Result[Appended | bool]]:
        """Hold an event that does not make its session used.

        The value is True if the lobby holds as much of the session as it may, so that the event
        counts as a first message. It is False if the session does not wait, or not as `seen`, or if
        the lobby holds this event. A repeat is recognised by the event's id.

        Raises:
            HeldEventsFullError: the lobby can hold no more, and the event may not use the session.
        """
        held: Result[Appended] | bool = yield from native("hold", key, event, seen)
        return Result(held) if isinstance(held, bool) else Result(held.value, held.changes)

    @operation()
    def claim(
        self,
        key: SessionKey,
        event: NewEvent,
        seen: Revision | LastSeen,
        *,
        token: Token,
        lease: timedelta,
        counts: bool,
    ) -> Asking[Result[HandOver] | None]:
        """Take the first message of a session into the lobby; whoever comes next finishes it.

        It also takes an expired session that is restorable. `counts` is False for what the agent
        says, which is no message where only the user's is. `token` is new; a session that was
        handed over before keeps its mark.

        None: the session does not wait, or not as `seen`. A repeat is recognised by the fence.
        """
        before = yield from first("before_claim", key)
        known = isinstance(seen, Revision)
        found = yield from rows(
            "claim",
            key,
            mark=token.mark,
            fence=token.fence,
            lease=lease,
            counts=counts,
            message=_text(event.record),
            event_id=event.record.id,
            exact=known,
            seen_time=seen.update_time,
            seen_number=seen.number if isinstance(seen, Revision) else None,
            seen_event=seen.last_event_id if isinstance(seen, LastSeen) else None,
        )
        row = yield from _taken(found, key, token.fence, OnItsWay.MOVING)
        if row is None:
            return None
        changes: tuple[Change, ...] = ()
        if row["expired_at"] is not None:
            was = Status.EXPIRED if before is None else before["was"]
            yield from counted(key, ChangeKind.RESURRECTED, was, Status.WAITING)
            changes = (change_of(row, self.rules, ChangeKind.RESURRECTED, Cause.MESSAGE),)
        return Result(_hand_over(row), changes)

    @operation()
    def take_over(
        self, key: SessionKey, *, fence: int, lease: timedelta
    ) -> Asking[HandOver | None]:
        """Take over a hand-over or a deletion whose lease is over; None if there is none.

        `fence` is new. A repeat is recognised by it.
        """
        found = yield from rows("take_over", key, fence=fence, lease=lease)
        row = yield from _taken(found, key, fence, OnItsWay.MOVING, OnItsWay.DELETING)
        return None if row is None else _hand_over(row)

    @operation()
    def renew(
        self, key: SessionKey, token: Token, *, lease: timedelta, service_id: str | None = None
    ) -> Asking[bool]:
        """Begin the lease anew, and note the session's id in the service; False: it is lost.

        A repeat begins it again.
        """
        row = yield from first(
            "renew", key, mark=token.mark, fence=token.fence, lease=lease, service_id=service_id
        )
        return row is not None

    @operation()
    def settle(
        self, key: SessionKey, token: Token, *, service_id: str | None
    ) -> Asking[Result[None] | None]:
        """Note that the service holds the session with its message; None: the token is lost.

        `service_id` is its id there, if that is another one. A repeat is recognised by the token.
        """
        named = {"mark": token.mark, "fence": token.fence}
        found = yield from rows(
            "settle", key, **named, service_id=service_id, in_control=key.in_control_group
        )
        if found:
            yield from counted(key, ChangeKind.USED, Status.WAITING, Status.USED)
            yield from rows(
                "observe_first_message",
                key,
                in_control=key.in_control_group,
                created_at=found[0]["created_at"],
                metadata=found[0]["metadata"],
            )
        row = yield from _taken(found, key, token.fence, OnItsWay.ELSEWHERE)
        if row is None:
            return None
        return Result(None, (change_of(row, self.rules, ChangeKind.USED),))

    @operation()
    def note_refusal(self, key: SessionKey, token: Token) -> Asking[bool]:
        """Note that the service refuses the message for good; False: the token is lost.

        Nobody puts the message after that: whoever comes next removes what was made, and takes the
        session back. A repeat notes it again.
        """
        row = yield from first("note_refusal", key, mark=token.mark, fence=token.fence)
        return row is not None

    @operation()
    def take_back(self, key: SessionKey, token: Token) -> Asking[Result[None] | None]:
        """Let a session wait again whose message was refused, with a fresh TTL; None: it is lost.

        It reads as before the claim, so that a copy of that time is good for another message. A
        repeat is recognised by the token.
        """
        found = yield from rows("take_back", key, mark=token.mark, fence=token.fence)
        row = yield from _taken(found, key, token.fence, *_IN_LOBBY)
        if row is None:
            return None
        yield from counted(key, ChangeKind.EXTENDED, Status.WAITING, Status.WAITING)
        return Result(None, (change_of(row, self.rules, ChangeKind.EXTENDED),))

    @operation(together=True)
    def begin_delete(
        self, key: SessionKey, *, token: Token, lease: timedelta, by: str | None = None
    ) -> Asking[Result[HandOver] | None]:
        """Delete a session for every reader; it remains to be removed from the service.

        It also takes a hand-over or a deletion whose lease is over, and makes a row where there is
        none. `token` is new; a session that was handed over keeps its mark. There is no change if
        there was no session.

        None: ADK's tables in this store hold the session, or somebody else works on it. A repeat
        is recognised by the fence, and tells of the session that the first attempt has seen.
        """
        now_seen = yield from first("before_delete", key)
        first_seen = yield from as_first_seen(now_seen)
        found = yield from rows(
            "begin_delete", key, mark=token.mark, fence=token.fence, lease=lease
        )
        row = yield from _taken(found, key, token.fence, OnItsWay.DELETING)
        if row is None:
            return None
        work = _hand_over(row)
        before = now_seen if found else first_seen
        if before is None or before["status"] == OnItsWay.DELETING:
            return Result(work)
        if before["status"] in _IN_LOBBY:
            yield from rows("observe_deleted", key)
        yield from rows("delete_runs", key)
        if self.rules.artifacts:
            yield from rows("note_artifacts", key)
        record = lifecycle_of(before, self.rules)
        stood = self.rules.still_stands(record, before["now"])
        was = status_of(before["status"])
        yield from counted(key, ChangeKind.DELETED if stood else None, was, None)
        if not stood:
            return Result(work)
        if by is not None:
            act = audited(key, by, ChangeKind.DELETED, status=record.status)
            yield from rows("record_act", key, **act)
        return Result(work, (Change(ChangeKind.DELETED, before["now"], record),))

    @operation()
    def reserve(self, key: SessionKey, token: Token, *, lease: timedelta) -> Asking[bool]:
        """Reserve a key that no session has, so that nobody else can use it; False: one has it.

        Meanwhile the caller removes what a hand-over with this mark has left in the service; so
        does whoever finds the row when the lease is over. The fence is new; a repeat is recognised
        by it. `end_delete` ends it.
        """
        found = yield from rows("reserve", key, mark=token.mark, fence=token.fence, lease=lease)
        return (yield from _taken(found, key, token.fence, OnItsWay.DELETING)) is not None

    @operation()
    def end_delete(self, key: SessionKey, token: Token) -> Asking[bool]:
        """Forget a session that is removed from the service; False: the token is lost.

        A repeat that finds no such row says True: the first attempt has forgotten the session, or
        whoever has taken it over does.
        """
        found = yield from rows("end_delete", key, mark=token.mark, fence=token.fence)
        return bool(found) or found.in_doubt

    @operation()
    def guard(self, key: SessionKey, *, fence: int, lease: timedelta) -> Asking[bool]:
        """Keep a session in the lobby, and its row as it is, until the lease is over.

        False: the session is not in the lobby, or somebody else is at work on it. The fence is
        new; a repeat is recognised by it.
        """
        found = yield from rows("guard", key, fence=fence, lease=lease)
        return (yield from _taken(found, key, fence, *_IN_LOBBY)) is not None

    @operation()
    def keep_guard(self, key: SessionKey, fence: int, *, lease: timedelta) -> Asking[bool]:
        """Begin the lease of a guard anew; False: it is over. A repeat begins it again."""
        return (yield from first("guarded", key, fence=fence, lease=lease)) is not None

    @operation()
    def unguard(self, key: SessionKey, fence: int) -> Asking[None]:
        """End a guard; a no-op if it is over. A repeat finds that it is."""
        yield from rows("unguard", key, fence=fence)

    @operation(writes=False)
    def refused(
        self, key: SessionKey, event: NewEvent, seen: Revision | LastSeen
    ) -> Asking[Appended]:
        """Find out why the lobby has not taken an event, as `Conversations.append` tells it."""
        return (yield from Conversations(self._database).not_appended(key, event, seen))


def _taken(found: Answer, key: SessionKey, fence: int, *statuses: str) -> Asking[Row | None]:
    """Return the row that a statement has changed, or that its first attempt has.

    The attempt is known by its fence, and by the status that it has left: if somebody else has
    taken the row since, that one finishes it, and this is None.
    """
    if found or not found.in_doubt:
        return found[0] if found else None
    row = yield from first("held_by", key, fence=fence)
    return row if row is not None and row["status"] in statuses else None


def _hand_over(row: Row) -> HandOver:
    message = row["message"]
    return HandOver(
        key=key_of(row),
        token=Token(row["mark"], row["fence"]),
        state=json.loads(row["state"]),
        held=[_event(held) for held in json.loads(row["held_events"])],
        message=None if message is None else _event(json.loads(message)),
        service_id=row["service_id"],
        is_delete=row["status"] == OnItsWay.DELETING,
        is_stray=row["status"] == OnItsWay.DELETING and row["first_message_at"] is None,
    )


def _text(event: EventRecord) -> str:
    """Return an event as the column `message` holds it."""
    return json.dumps(
        {
            "id": event.id,
            "invocation_id": event.invocation_id,
            "timestamp": event.timestamp.isoformat(),
            "event_data": event.data,
        }
    )


def _event(held: Any) -> EventRecord:
    """Read an event that the lobby holds: its data is text on SQLite and JSON on PostgreSQL."""
    data, moment = held["event_data"], datetime.fromisoformat(held["timestamp"])
    return EventRecord(
        held["id"],
        held["invocation_id"],
        moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment,
        data if isinstance(data, str) else json.dumps(data),
    )
