"""The transitions of a session in PostgreSQL other than its appends."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg

from lapse.audit.store import amendment
from lapse.core.documents import (
    LARGEST_METADATA,
    StateDelta,
    check_metadata_size,
    merge_state,
    split_state,
)
from lapse.core.errors import (
    NoSuchSessionError,
    OutcomeUnknownError,
    SessionExistsError,
    StoreUnavailableError,
    WrongStatusError,
)
from lapse.core.lifecycle import SHORTEST_RESTORE, Cause, Change, ChangeKind, Lifecycle, Status
from lapse.store.postgres import reading
from lapse.store.postgres import values as rows
from lapse.store.postgres.auditing import act
from lapse.store.postgres.call import Call
from lapse.store.postgres.connections import Taken
from lapse.store.sessions import Created, EventWindow, Outcome, Revision, SessionRecord, Swept


async def create(
    call: Call,
    state: StateDelta,
    ttl: timedelta,
    metadata: Mapping[str, Any],
    site: str | None,
) -> Created:
    """Create a waiting session; see `Store.create`."""
    began = time.monotonic()
    row, in_doubt = await call.attempt(
        "create",
        **rows.state_params(state) | {"state": json.dumps(state.session)},
        ttl=ttl,
        metadata=json.dumps(metadata),
        site=site,
    )
    if row is None and in_doubt:
        return await _created_before(call, state, ttl, metadata, since=began)
    if row is None:
        raise SessionExistsError(f"session {call.key.short}… exists already")
    moment = row["created_at"]
    record = Lifecycle(
        key=call.key,
        status=Status.WAITING,
        created_at=moment,
        ttl=ttl,
        expires_at=moment + ttl,
        restorable_until=call.rules.restorable_until(moment, moment + ttl),
        metadata=metadata,
    )
    merged = merge_state(
        state.session, rows.document(row["app_state"]), rows.document(row["user_state"])
    )
    session = SessionRecord(call.key, merged, Revision(moment, 0, waiting=True))
    return Created(session, Change(ChangeKind.CREATED, moment, record))


async def _created_before(
    call: Call, state: StateDelta, ttl: timedelta, metadata: Mapping[str, Any], *, since: float
) -> Created:
    """Return the session that a broken-off attempt of this very create has made.

    It is untouched, holds what was to be created, and is not older than the attempt.

    Raises:
        OutcomeUnknownError: the session there is another's, or is ours and was changed since,
            or the store does not answer.
    """
    try:
        found = await reading.read(call, EventWindow(newest=0))
        row = await call.first("lifecycle")
    except StoreUnavailableError as error:
        raise OutcomeUnknownError(str(error)) from error
    if found is not None and row is not None and row["status"] == Status.WAITING:
        record = rows.lobby_record(row, call.rules)
        age = row["now"] - record.created_at
        if (
            found.revision == Revision(record.created_at, 0)
            and (record.status, record.ttl, record.metadata) == (Status.WAITING, ttl, metadata)
            and split_state(found.state).session == state.session
            and age.total_seconds() <= time.monotonic() - since
        ):
            session = replace(found, revision=replace(found.revision, waiting=True))
            return Created(session, Change(ChangeKind.CREATED, record.created_at, record))
    raise OutcomeUnknownError(
        f"PostgreSQL: the connection broke; session {call.key.short}… is there, and may be "
        "another's"
    )


async def delete(call: Call, by: str | None) -> Change | None:
    """Delete a session in whatever status; see `Store.delete`."""
    seen = await call.lifecycle()

    async def delete_all(connection: Taken) -> Change | None:
        records = await connection.fetch(*call.bound("delete_record"))
        sessions = await connection.fetch(*call.bound("delete_session"))
        await connection.execute(*call.bound("delete_runs"))
        change = _deleted(call, seen, records, sessions)
        if by is not None and change is not None:
            done = act(by, change.kind, status=change.record.status)
            await connection.execute(*call.bound("record_act", **done))
        return change

    return await call.connections.transact(delete_all)


def _deleted(
    call: Call,
    seen: Lifecycle | None,
    records: Sequence[asyncpg.Record],
    sessions: Sequence[asyncpg.Record],
) -> Change | None:
    if not records:
        if seen is None or not sessions:
            return None
        return Change(ChangeKind.DELETED, sessions[0]["now"], seen)
    moment, record = records[0]["now"], rows.lobby_record(records[0], call.rules)
    if not call.rules.still_stands(record, moment):
        return None
    return Change(ChangeKind.DELETED, moment, record)


async def amend(
    call: Call, metadata: Mapping[str, Any] | None, ttl: timedelta | None, by: str | None
) -> Outcome:
    """Change a session's metadata and TTL; see `Store.amend`."""
    row = await call.first(
        "amend",
        metadata=None if metadata is None else json.dumps(metadata),
        ttl=ttl,
        largest_metadata=LARGEST_METADATA,
        **act(by, ChangeKind.AMENDED, **amendment(metadata, ttl)),
    )
    if row is not None:
        return _changed(call, ChangeKind.AMENDED, row)
    record = await _required(call)
    if record.ttl is not None:
        if ttl is not None and record.status is not Status.WAITING:
            raise _wrong_status(record, "only a waiting session can be given a TTL")
        check_metadata_size(json.dumps({**(record.metadata or {}), **(metadata or {})}))
    raise _wrong_status(record, "ADK created it; Lapse has no record of it to change")


async def extend(call: Call, by: str | None) -> Outcome:
    """Give a waiting session a fresh TTL; see `Store.extend`."""
    done = act(by, ChangeKind.EXTENDED)
    row = await call.first("extend", extensible=call.rules.extensible, **done)
    if row is not None:
        return _changed(call, ChangeKind.EXTENDED, row)
    raise _wrong_status(await _required(call), "only a waiting session can be extended")


async def resurrect(call: Call, cause: Cause, by: str | None) -> Outcome:
    """Turn an expired session into a waiting one; see `Store.resurrect`."""
    row = await call.first("resurrect", **act(by, ChangeKind.RESURRECTED, cause=cause))
    if row is not None:
        return _changed(call, ChangeKind.RESURRECTED, row, cause)
    return Outcome(await _required(call))


async def expire(call: Call, by: str | None) -> Outcome:
    """Expire a waiting session now; see `Store.expire`."""
    done = act(by, ChangeKind.EXPIRED)
    row = await call.first("expire", shortest_restore=SHORTEST_RESTORE, **done)
    if row is not None:
        return _changed(call, ChangeKind.EXPIRED, row)
    record = await _required(call)
    if record.status is Status.EXPIRED:
        return Outcome(record)
    reason = "only a waiting session can be expired, and none while clean-up is switched off"
    raise _wrong_status(record, reason)


async def expire_due(call: Call, limit: int) -> Swept:
    """Expire what is due; see `Store.expire_due`."""
    if not call.rules.enforced:
        return Swept()
    found = await call.run("expire_due", limit=limit, shortest_restore=SHORTEST_RESTORE)
    kinds = {Status.USED: ChangeKind.KEPT, Status.EXPIRED: ChangeKind.EXPIRED}
    return Swept(found, lambda row: _change(call, kinds[Status(row["status"])], row))


async def purge_due(call: Call, limit: int) -> Swept:
    """Delete what is past restoring; see `Store.purge_due`."""
    if not call.rules.enforced:
        return Swept()
    found = await call.run("purge_due", limit=limit)
    return Swept(found, partial(_change, call, ChangeKind.PURGED))


async def time_to_next(call: Call) -> timedelta | None:
    """Return how long until a sweep has work; see `Store.time_to_next`."""
    row = await call.first("time_to_next")
    if row is None or row["ahead"] is None or not call.rules.enforced:
        return None
    ahead: timedelta = row["ahead"]
    return max(timedelta(0), ahead)


async def _required(call: Call) -> Lifecycle:
    record = await call.lifecycle()
    if record is None:
        raise NoSuchSessionError(f"session {call.key.short}… does not exist")
    return record


def _wrong_status(record: Lifecycle, reason: str) -> WrongStatusError:
    return WrongStatusError(f"session {record.key.short}… is {record.status}: {reason}")


def _change(
    call: Call, kind: ChangeKind, row: asyncpg.Record, cause: Cause | None = None
) -> Change:
    return Change(kind, row["now"], rows.lobby_record(row, call.rules), cause)


def _changed(
    call: Call, kind: ChangeKind, row: asyncpg.Record, cause: Cause | None = None
) -> Outcome:
    change = _change(call, kind, row, cause)
    return Outcome(change.record, change)
