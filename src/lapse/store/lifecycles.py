"""Reading the record of a session, for operations that change it or say why they do not."""

from __future__ import annotations

from typing import Final

from lapse.core.errors import no_such_session
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import (
    Cause,
    Change,
    ChangeKind,
    Lifecycle,
    OnItsWay,
    Rules,
    Status,
)
from lapse.store.operation import Answer, Asking, Row, done_before, only, rows
from lapse.store.records import Result, orphan_of, shown_of


def read_lifecycle(key: SessionKey, rules: Rules) -> Asking[Lifecycle | None]:
    """Read a session's record, as `Lobby.lifecycle` returns it."""
    row = yield from only("lifecycle", key)
    return (yield from lifecycle_in(row, key, rules))


def required(key: SessionKey, rules: Rules) -> Asking[Lifecycle]:
    """Read a session's record; NoSuchSessionError if there is none."""
    record = yield from read_lifecycle(key, rules)
    if record is None:
        raise no_such_session(key.named)
    return record


def lifecycle_in(row: Row, key: SessionKey, rules: Rules) -> Asking[Lifecycle | None]:
    """Return the record in a row of the statement `lifecycle`."""
    status, create_time = row["status"], row["create_time"]
    if create_time is not None and status != Status.USED:
        events = yield from rows("read_event_texts", key)
        return orphan_of(key, create_time, events, on_hold=bool(row["is_held"]))
    # The record can outlive a used session that others deleted from ADK's tables.
    is_gone = status == Status.USED and create_time is None
    if status is None or is_gone or status == OnItsWay.DELETING:
        return None
    record = shown_of(row, rules)
    return record if rules.still_stands(record, row["now"]) else None


def changed_before(
    key: SessionKey, answer: Answer, rules: Rules, kind: ChangeKind, cause: Cause | None = None
) -> Asking[Result[Lifecycle] | None]:
    """Return the session that an earlier attempt of the call has changed; None if none has.

    The session is returned as it is now. There is no change to publish if it has changed again.

    Raises:
        NoSuchSessionError: the session is gone again.
    """
    note = yield from done_before(answer)
    if note is None:
        return None
    record = yield from required(key, rules)
    stands = record.status is _STATUS_AFTER.get(kind, record.status)
    return Result(record, (Change(kind, note["at"], record, cause),) if stands else ())


_STATUS_AFTER: Final = {
    ChangeKind.EXTENDED: Status.WAITING,
    ChangeKind.RESURRECTED: Status.WAITING,
    ChangeKind.EXPIRED: Status.EXPIRED,
}
