"""Archiving used sessions by a policy, and purging archived ones: each batch in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change, ChangeKind, Rules, Status
from lapse.core.minutes import DEFAULT_TTL
from lapse.retention.memory_outbox import memory_owed
from lapse.retention.rules import NEVER_DUE, RECHECK, STALE, Policy, Standing, look
from lapse.store.archiving import Packed, pack, unpack
from lapse.store.operation import (
    Answer,
    Asking,
    Dialect,
    Part,
    Row,
    apart,
    dialect,
    first,
    key_of,
    names_of,
    operation,
    rows,
)
from lapse.store.records import Changes, Result, change_of
from lapse.store.riders import all_counted, counted

BATCH_BYTES: Final = 8 * 1024 * 1024
"""Sessions of so many bytes of events are archived at once; a larger one goes alone."""

LARGEST: Final = 64 * 1024 * 1024
"""A session with more bytes of events stays where it is: it would be in memory as a whole."""


_USES: Final = ("first_message_at", "active_at", "last_event")


@dataclass(frozen=True, slots=True)
class Looked:
    """The outcome for the sessions that a sweep looked at.

    `later` are those that are not due, or not yet; the others were archived, or are locked by
    somebody who changes them now.
    """

    archived: int = 0
    later: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """An archived session that was taken to be purged; another archive of it is another one."""

    key: SessionKey
    archived_at: datetime


@dataclass(frozen=True, slots=True)
class _Later:
    """A session that is not due, with the moment of the next look; `warns`: it falls due then."""

    row: Row
    at: datetime
    warns: bool = False

    @property
    def warned_at(self) -> datetime | None:
        """Return when its archive was announced; None: the archive is not near."""
        moment: datetime = self.row["now"]
        return moment if self.warns else None

    @property
    def is_news(self) -> bool:
        """Return whether its archive is announced now, and was not before."""
        before: datetime | None = self.row["warned_at"]
        return self.warns and (before is None or before < _active_at(self.row))


class ArchiveStore(Part):
    """Moves used sessions from ADK's tables into the archive, and purges archived ones."""

    @operation(together=True)
    def archive_sessions(
        self, keys: Sequence[SessionKey], policy: Policy
    ) -> Asking[Result[Looked]]:
        """Archive those of these used sessions that a policy takes.

        Their rows are locked first; how each stands is read after that, so that a message that was
        committed before is seen, and one that comes later restores the session. Sessions that
        somebody else has locked are left alone. Each that is not taken is looked at again when it
        may be. It does nothing while the rules are not enforced. A repeat archives what is still
        due.
        """
        if not self.rules.enforced or not keys:
            return Result(Looked())
        is_sqlite = (yield from dialect()) is Dialect.SQLITE
        locked = keys if is_sqlite else (yield from _locked(keys))
        due, later = yield from _due_of(locked, policy, is_sqlite=is_sqlite)
        changes: list[Change] = []
        for one in later:
            yield from rows(
                "check_later", key_of(one.row), check_at=one.at, warned_at=one.warned_at
            )
            if one.is_news:
                change = change_of(one.row, self.rules, ChangeKind.ARCHIVING)
                record = replace(change.record, archives_at=one.at)
                changes.append(replace(change, record=record))
        done = Answer()
        if due:
            done = yield from _archived(due, policy, is_sqlite=is_sqlite)
            yield from all_counted(done, ChangeKind.ARCHIVED, Status.USED, Status.ARCHIVED)
            changes += [change_of(row, self.rules, ChangeKind.ARCHIVED) for row in done]
        return Result(Looked(len(done), len(later)), changes)

    @operation()
    def record_used(self, key: SessionKey) -> Asking[bool]:
        """Make the record of a used session that has none, because stock ADK created it.

        False: it has one, has no message, or does not exist. A repeat finds it made.
        """
        made = yield from rows("record_used", key, ttl=DEFAULT_TTL)
        if made:
            yield from counted(key, None, None, Status.USED)
        return bool(made)

    @operation(together=True)
    def purge_archived(self, limit: int) -> Asking[Result[int]]:
        """Delete at most `limit` archived sessions whose time is over, with their runs.

        Their artifacts go to the outbox. The value is their number. It does nothing while the rules
        are not enforced or a brake is set. A repeat deletes what is still due.
        """
        if not self.rules.enforced:
            return Result(0)
        found = yield from rows("purge_archived", limit=limit)
        return (yield from _purged(found, self.rules))

    @operation()
    def take_to_purge(self, limit: int, *, lease: timedelta) -> Asking[Sequence[Taken]]:
        """Take at most `limit` archived sessions that are due to be purged, for some time.

        Nobody else takes them or purges them within `lease`; their owners may restore them. It
        takes nothing while the rules are not enforced or a brake is set. A repeat takes others:
        what an attempt took whose answer was lost is due again after the lease.
        """
        if not self.rules.enforced:
            return []
        found = yield from rows("take_to_purge", limit=limit, purge_pause=lease)
        return [Taken(key_of(row), row["archived_at"]) for row in found]

    @operation(writes=False)
    def archived_content(self, taken: Taken) -> Asking[Packed | None]:
        """Return all that an archived session was; None if it is not in that archive any more."""
        row = yield from first("read_taken", taken.key, archived_at=taken.archived_at)
        return None if row is None else (yield from apart(unpack, row["content"]))

    @operation()
    def postpone_purge(self, taken: Taken, pause: timedelta) -> Asking[None]:
        """Let a session that was taken be due again after a pause. A repeat does it again."""
        yield from rows(
            "postpone_purge", taken.key, archived_at=taken.archived_at, purge_pause=pause
        )

    @operation(together=True)
    def purge_taken(self, taken: Taken, forget: Sequence[str] = ()) -> Asking[Result[int]]:
        """Delete an archived session that was taken, as `purge_archived` does; 0: it may not go.

        What is remembered of the events `forget` goes to the outbox of memory, in the same
        transaction. It may not go if it was restored, pinned or put on hold meanwhile. A repeat
        finds it deleted.
        """
        if not self.rules.enforced:
            return Result(0)
        found = yield from rows("purge_taken", taken.key, archived_at=taken.archived_at)
        if found:
            yield from memory_owed(taken.key, forget)
        return (yield from _purged(found, self.rules))


def _purged(found: Answer, rules: Rules) -> Asking[Result[int]]:
    """Delete what else is kept of archived sessions whose rows in the lobby are gone."""
    yield from all_counted(found, ChangeKind.PURGED, Status.ARCHIVED, None)
    is_sqlite = (yield from dialect()) is Dialect.SQLITE
    for row in found:
        key = key_of(row)
        yield from rows("delete_runs", key)
        if is_sqlite:
            yield from rows("delete_archived", key)
            told = {"created_at": row["created_at"], "amount": row["resurrections"]}
            yield from rows("owe_purged_webhook", key, **told)
        if rules.artifacts:
            yield from rows("note_artifacts", key)
    return Result(len(found), Changes(found, rules, ChangeKind.PURGED) if found else ())


def _asked(keys: Sequence[SessionKey], *, is_sqlite: bool) -> Mapping[str, Any]:
    return {"keys": json.dumps(keys)} if is_sqlite else names_of(keys)


def _locked(keys: Sequence[SessionKey]) -> Asking[Sequence[SessionKey]]:
    found = yield from rows("lock_to_archive", **names_of(keys))
    return [key_of(row) for row in found]


def _due_of(
    keys: Sequence[SessionKey], policy: Policy, *, is_sqlite: bool
) -> Asking[tuple[Sequence[Row], Sequence[_Later]]]:
    """Return the rows of the sessions to archive now, and of the others when to look again."""
    due: list[Row] = []
    later: list[_Later] = []
    if not keys:
        return due, later
    ranks = any(policy.of(key.app_name).per_user is not None for key in keys)
    asked = _asked(keys, is_sqlite=is_sqlite)
    found: Answer = yield from rows("standings", stale=STALE, ranks=ranks, **asked)
    total = 0
    for row in found:
        standing = _standing(row)
        found_now = look(policy.of(row["app_name"]), standing)
        is_small = row["bytes"] <= LARGEST
        if found_now.at is None or found_now.at > standing.now:
            at = found_now.at or standing.now + NEVER_DUE
            later.append(_Later(row, at, warns=found_now.warns and is_small))
        elif not is_small:
            later.append(_Later(row, standing.now + RECHECK))
        elif not due or total + row["bytes"] <= BATCH_BYTES:
            due.append(row)
            total += row["bytes"]
    return due, later


def _standing(row: Row) -> Standing:
    awaits, answered = row["awaits_since"], row["answered_at"]
    is_answered = awaits is None or (answered is not None and answered > awaits)
    return Standing(
        now=row["now"],
        began_at=row["restored_at"] or row["first_message_at"],
        active_at=_active_at(row),
        is_exempt=bool(row["pinned_at"] or row["is_held"] or row["is_running"]),
        awaits_since=None if is_answered else awaits,
        rank=row["rank"],
    )


def _active_at(row: Row) -> datetime:
    moments: Sequence[datetime | None] = [row[name] for name in _USES]
    return max(moment for moment in moments if moment is not None)


def _archived(due: Sequence[Row], policy: Policy, *, is_sqlite: bool) -> Asking[Answer]:
    """Write the archive's rows of locked sessions, and delete the sessions from ADK's tables."""
    keys = [key_of(row) for row in due]
    found = yield from rows("contents", **_asked(keys, is_sqlite=is_sqlite))
    if is_sqlite:
        done = Answer()
        for row in found:
            done += yield from _archived_alone(row, policy)
        return done
    contents = yield from apart(_packed_all, [_columns(row, row["packed"]) for row in found])
    keys = [key_of(row) for row in found]
    done = yield from rows(
        "archive",
        **names_of(keys),
        newest_events=[row["newest_event"] for row in found],
        event_counts=[row["events"] for row in found],
        contents=contents,
        kept_for=[policy.of(key.app_name).archive for key in keys],
    )
    return done


def _archived_alone(row: Row, policy: Policy) -> Asking[Answer]:
    key = key_of(row)
    events = yield from rows("event_columns", key)
    columns = ("id", "invocation_id", "raw_time", "event_data")
    texts = json.dumps([[event[name] for name in columns] for event in events])
    done: Answer = yield from rows(
        "archive",
        key,
        newest_event=events[-1]["id"] if events else None,
        events=len(events),
        content=pack(*_columns(row, texts)),
        kept_for=policy.of(key.app_name).archive,
    )
    return done


def _columns(row: Row, events: str) -> tuple[str, str, str, str]:
    return row["state"], row["raw_create"], row["raw_update"], events


def _packed_all(sessions: Sequence[tuple[str, str, str, str]]) -> list[bytes]:
    return [pack(*columns) for columns in sessions]
