"""The transitions of a session in SQLite other than its appends."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from lapse.audit.store import amendment
from lapse.core.documents import (
    LARGEST_METADATA,
    StateDelta,
    check_metadata_size,
    merge_state,
    update_document,
)
from lapse.core.errors import NoSuchSessionError, SessionExistsError, WrongStatusError
from lapse.core.lifecycle import (
    SHORTEST_RESTORE,
    Cause,
    Change,
    ChangeKind,
    Lifecycle,
    Status,
)
from lapse.store.sessions import Created, Outcome, Revision, SessionRecord, Swept
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.append import update_outer_state
from lapse.store.sqlite.auditing import record as audit
from lapse.store.sqlite.observations import observe_purge
from lapse.store.sqlite.transaction import Transaction


def create(
    transaction: Transaction,
    state: StateDelta,
    ttl: timedelta,
    metadata: Mapping[str, Any],
    site: str | None,
) -> Created:
    """Create a waiting session; see `Store.create`."""
    key, moment, rules = transaction.key, transaction.moment, transaction.rules
    before = transaction.first("read_status")
    row = transaction.first(
        "create",
        ttl=rows.duration_micros(ttl),
        metadata=json.dumps(metadata),
        state=json.dumps(state.session),
        update_time=rows.to_text(moment),
        site=site,
    )
    if row is None:
        raise SessionExistsError(f"session {key.short}… exists already")
    was = None if before is None else Status(before["status"])
    transaction.count(ChangeKind.CREATED, was, Status.WAITING)
    update_outer_state(transaction, state)
    record = Lifecycle(
        key=key,
        status=Status.WAITING,
        created_at=moment,
        ttl=ttl,
        expires_at=moment + ttl,
        restorable_until=rules.restorable_until(moment, moment + ttl),
        metadata=metadata,
    )
    merged = merge_state(
        state.session,
        {**rows.document(row["app_state"]), **state.app},
        {**rows.document(row["user_state"]), **state.user},
    )
    session = SessionRecord(key, merged, Revision(moment, 0, waiting=True))
    return Created(session, Change(ChangeKind.CREATED, moment, record))


def delete(transaction: Transaction, by: str | None) -> Change | None:
    """Delete a session in whatever status; see `Store.delete`."""
    record = transaction.lifecycle()
    transaction.run("observe_withdrawn")
    deleted = transaction.first("delete_record")
    if deleted is not None and deleted["status"] != Status.USED:
        kind = None if record is None else ChangeKind.DELETED
        transaction.count(kind, Status(deleted["status"]), None)
    transaction.run("delete_session")
    transaction.run("delete_runs")
    if record is None:
        return None
    if transaction.rules.artifacts and record.status in {Status.WAITING, Status.EXPIRED}:
        transaction.run("owe_artifacts")
    audit(transaction, by, ChangeKind.DELETED, status=record.status)
    return Change(ChangeKind.DELETED, transaction.moment, record)


def amend(
    transaction: Transaction,
    metadata: Mapping[str, Any] | None,
    ttl: timedelta | None,
    by: str | None,
) -> Outcome:
    """Change a session's metadata and TTL; see `Store.amend`."""
    text = None if metadata is None else json.dumps(metadata)
    row = transaction.first(
        "amend",
        metadata=text,
        ttl=None if ttl is None else rows.duration_micros(ttl),
        largest_metadata=LARGEST_METADATA,
    )
    if row is not None:
        status = Status(row["status"])
        transaction.count(ChangeKind.AMENDED, status, status)
        audit(transaction, by, ChangeKind.AMENDED, **amendment(metadata, ttl))
        return _outcome(transaction, ChangeKind.AMENDED, row)
    record = _required(transaction)
    lobby = transaction.first("read_lobby")
    if lobby is not None:
        if ttl is not None and record.status is not Status.WAITING:
            raise _wrong_status(record, "only a waiting session can be given a TTL")
        check_metadata_size(update_document(lobby["metadata"], text or "{}"))
    raise _wrong_status(record, "ADK created it; Lapse has no record of it to change")


def extend(transaction: Transaction, by: str | None) -> Outcome:
    """Give a waiting session a fresh TTL; see `Store.extend`."""
    row = transaction.first("extend", extensible=rows.duration_micros(transaction.rules.extensible))
    if row is not None:
        transaction.count(ChangeKind.EXTENDED, Status.WAITING, Status.WAITING)
        audit(transaction, by, ChangeKind.EXTENDED)
        return _outcome(transaction, ChangeKind.EXTENDED, row)
    raise _wrong_status(_required(transaction), "only a waiting session can be extended")


def resurrect(transaction: Transaction, cause: Cause, by: str | None) -> Outcome:
    """Turn an expired session into a waiting one; see `Store.resurrect`."""
    before, row = transaction.first("read_status"), transaction.first("resurrect")
    if before is not None and row is not None:
        transaction.count(ChangeKind.RESURRECTED, Status(before["status"]), Status.WAITING)
        audit(transaction, by, ChangeKind.RESURRECTED, cause=cause)
        return _outcome(transaction, ChangeKind.RESURRECTED, row, cause)
    return Outcome(_required(transaction))


def expire(transaction: Transaction, by: str | None) -> Outcome:
    """Expire a waiting session now; see `Store.expire`."""
    row = transaction.first("expire", shortest_restore=rows.duration_micros(SHORTEST_RESTORE))
    if row is not None:
        transaction.count(ChangeKind.EXPIRED, Status.WAITING, Status.EXPIRED)
        audit(transaction, by, ChangeKind.EXPIRED)
        return _outcome(transaction, ChangeKind.EXPIRED, row)
    record = _required(transaction)
    if record.status is Status.EXPIRED:
        return Outcome(record)
    reason = "only a waiting session can be expired, and none while clean-up is switched off"
    raise _wrong_status(record, reason)


def expire_due(transaction: Transaction, limit: int) -> Swept:
    """Expire what is due; see `Store.expire_due`."""
    rules = transaction.rules
    if not rules.enforced or (not rules.horizon and transaction.first("brake") is not None):
        return Swept()
    kept = transaction.run("keep_due", limit=limit).fetchall()
    expired = transaction.run(
        "expire_due",
        limit=limit - len(kept),
        shortest_restore=rows.duration_micros(SHORTEST_RESTORE),
    ).fetchall()
    for kind, became, found in (
        (ChangeKind.KEPT, Status.USED, kept),
        (ChangeKind.EXPIRED, Status.EXPIRED, expired),
    ):
        transaction.count_all(kind, Status.WAITING, became, _by_app(found))
    kinds = {Status.USED: ChangeKind.KEPT, Status.EXPIRED: ChangeKind.EXPIRED}
    return Swept(
        [*kept, *expired], lambda row: _changed(transaction, kinds[Status(row["status"])], row)
    )


def purge_due(transaction: Transaction, limit: int) -> Swept:
    """Delete what is past restoring; see `Store.purge_due`."""
    if not transaction.rules.enforced or transaction.first("brake") is not None:
        return Swept()
    observe_purge(transaction, limit)
    purged = transaction.run("purge_due", limit=limit).fetchall()
    transaction.count_all(ChangeKind.PURGED, Status.EXPIRED, None, _by_app(purged))
    if transaction.rules.artifacts:
        for row in purged:
            replace(transaction, key=rows.key_of(row)).run("owe_artifacts")
    return Swept(purged, partial(_changed, transaction, ChangeKind.PURGED))


def time_to_next(transaction: Transaction) -> timedelta | None:
    """Return how long until a sweep has work; see `Store.time_to_next`."""
    row = transaction.first("next_due")
    if row is None or row["due"] is None or not transaction.rules.enforced:
        return None
    return timedelta(microseconds=max(0, row["due"] - transaction.now))


def _by_app(found: Iterable[sqlite3.Row]) -> Mapping[str, int]:
    return Counter(row["app_name"] for row in found)


def _required(transaction: Transaction) -> Lifecycle:
    record = transaction.lifecycle()
    if record is None:
        raise NoSuchSessionError(f"session {transaction.key.short}… does not exist")
    return record


def _wrong_status(record: Lifecycle, reason: str) -> WrongStatusError:
    return WrongStatusError(f"session {record.key.short}… is {record.status}: {reason}")


def _outcome(
    transaction: Transaction, kind: ChangeKind, row: sqlite3.Row, cause: Cause | None = None
) -> Outcome:
    change = _changed(transaction, kind, row, cause)
    return Outcome(change.record, change)


def _changed(
    transaction: Transaction, kind: ChangeKind, row: sqlite3.Row, cause: Cause | None = None
) -> Change:
    record = rows.lobby_record(row, transaction.rules, transaction.now)
    return Change(kind, transaction.moment, record, cause)
