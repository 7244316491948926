"""Archived sessions: what their compressed row holds, and how one comes back into ADK's tables.

Every transition that may meet an archived session stands on this; what archives and purges them is
in `lapse.retention`. On both dialects the row holds texts, so that ADK's tables have the same
afterwards, byte for byte: the columns of SQLite as they are, those of PostgreSQL as it casts them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from lapse.core.errors import EventIdTakenError, StoreRefusedError, WrongStatusError, outdated
from lapse.core.keys import SessionKey, shortened
from lapse.core.lifecycle import Cause, Change, ChangeKind, Rules, Status
from lapse.store.operation import Asking, Dialect, apart, dialect, first, native, rows
from lapse.store.records import Appended, LastSeen, NewEvent, Result, Revision, change_of
from lapse.store.riders import audited, counted
from lapse.store.shared_state import refuse_without_room

_FORM: Final = 1
"""The version of the form of the content."""

EventTexts = Sequence[str | None]
"""The columns of an event: id, invocation_id, timestamp, event_data."""


class Packed(NamedTuple):
    """A session as ADK's tables held it: their columns as texts, and its events in order."""

    state: str
    create_time: str
    update_time: str
    events: Sequence[EventTexts]


def pack(state: str, create_time: str, update_time: str, events: str) -> bytes:
    """Return the content of an archived session; `events` is a JSON array of `EventTexts`."""
    head = json.dumps([_FORM, state, create_time, update_time])
    return zlib.compress(f"{head[:-1]}, {events}]".encode())


def unpack(content: bytes) -> Packed:
    """Read the content of an archived session.

    Raises:
        StoreRefusedError: a newer Lapse has written it, in another form.
    """
    form, *columns = json.loads(zlib.decompress(content))
    if form != _FORM:
        raise StoreRefusedError(
            f"an archived session has form {form}, and this Lapse reads form {_FORM}; upgrade Lapse"
        )
    return Packed(*columns)


class Archived(NamedTuple):
    """An archived session whose record is locked.

    `newest_event` is the id of its newest event.
    """

    packed: Packed
    revision: Revision
    newest_event: str | None

    def is_as(self, seen: Revision | LastSeen) -> bool:
        """Return whether a writer has seen the session as it is."""
        if isinstance(seen, LastSeen):
            is_later = self.revision.update_time <= seen.update_time
            return is_later or self.newest_event == seen.last_event_id
        known = seen.number in {None, self.revision.number}
        return known and seen.update_time == self.revision.update_time


def refuse_if_held(key: SessionKey) -> Asking[None]:
    """Refuse to delete a session that is on hold.

    Raises:
        WrongStatusError: the session is on hold.
    """
    if (yield from first("held", key)) is not None:
        raise WrongStatusError(
            f"session {key.named} is on hold; ask an operator to release it, then delete it"
        )


def was_archived(key: SessionKey) -> Asking[bool]:
    """Return whether a session is archived, or has been restored.

    A restore may have happened since an append did not find the session.
    """
    return (yield from first("was_archived", key)) is not None


def take_archived(key: SessionKey) -> Asking[Archived | None]:
    """Lock an archived session and read it; None if there is none. It is for one transaction."""
    locked = yield from first("lock_archived", key)
    # A statement of its own, so that it sees what was committed before the lock.
    found = None if locked is None else (yield from first("read_archived", key))
    if locked is None or found is None:
        return None
    packed = yield from apart(unpack, found["content"])
    revision = Revision(found["update_time"], locked["revision"])
    return Archived(packed, revision, found["newest_event"])


def restored(
    key: SessionKey, packed: Packed, rules: Rules, cause: Cause, by: str | None = None
) -> Asking[Change | None]:
    """Put a session that `take_archived` has locked back; None if stock ADK has made it anew."""
    act = audited(key, by, ChangeKind.RESTORED, cause=cause)
    answer = yield from rows(
        "restore_archived",
        key,
        packed_state=packed.state,
        packed_create=packed.create_time,
        packed_update=packed.update_time,
        packed_events=json.dumps(packed.events),
        **act,
    )
    if not answer:
        return None
    if (yield from dialect()) is Dialect.SQLITE:
        for event in packed.events:
            columns = ("packed_id", "packed_invocation", "packed_time", "packed_data")
            yield from rows("restore_event", key, **dict(zip(columns, event, strict=True)))
    yield from counted(key, ChangeKind.RESTORED, Status.ARCHIVED, Status.USED)
    if by is not None:
        yield from rows("audit_change", key, **act)
    return change_of(answer[0], rules, ChangeKind.RESTORED, cause)


def restoring(
    key: SessionKey, rules: Rules, cause: Cause, by: str | None = None
) -> Asking[Change | None]:
    """Restore an archived session, in one transaction; None if there is none."""
    archived = yield from take_archived(key)
    if archived is None:
        return None
    return (yield from restored(key, archived.packed, rules, cause, by))


def appending_restored(
    key: SessionKey, event: NewEvent, seen: Revision | LastSeen, rules: Rules
) -> Asking[Result[Appended] | None]:
    """Restore an archived session and append an event to it, in one transaction.

    None: it is not archived any more, or stock ADK has made another one of its id.

    Raises:
        OutdatedSessionError: the writer has not seen the session as it was archived.
        EventIdTakenError: another event of the session has the event's id.
        SharedStateFullError: there is no room for what the event changes of app or user state.
    """
    archived = yield from take_archived(key)
    if archived is None:
        return None
    # All that could refuse the event comes before the first write.
    new = event.record
    stored = next((one for one in archived.packed.events if one[0] == new.id), None)
    if stored is not None:
        if _data(stored[3]) != _data(new.data):
            reason = f"{shortened(new.id)} is the id of another event of this session; use a new id"
            raise EventIdTakenError("event id", reason)
        return Result(Appended(None, repeated=True))
    if not archived.is_as(seen):
        raise outdated(key.named)
    yield from refuse_without_room(key, event.delta, rules)
    change = yield from restored(key, archived.packed, rules, Cause.MESSAGE)
    if change is None:
        return None
    appended: Result[Appended] | None = yield from native("append", key, event, seen)
    assert appended is not None, "a restored session takes what it would have taken before"
    return Result(appended.value, (change, *appended.changes))


def _data(text: str | None) -> Any:
    return None if text is None else json.loads(text)
