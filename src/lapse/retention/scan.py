"""Finds the used sessions for which no record says when to look at them.

After a policy is confirmed, a scan goes through all sessions once: it makes the records of those
that stock ADK created, and writes for each when to look at it. How far it has come is a row, so a
crash costs a page at most. After that it rests. Sessions that are used later through a server that
sweeps are reported by that server; the others, such as those of stock ADK, are found by a scan that
goes on slowly, a page at a time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from lapse.core.minutes import DEFAULT_TTL
from lapse.retention.rules import RECHECK, Policy, Standing, look
from lapse.store.operation import (
    Asking,
    Dialect,
    Part,
    Row,
    after,
    dialect,
    first,
    key_of,
    names_of,
    operation,
    rows,
)
from lapse.store.riders import counted


@dataclass(frozen=True, slots=True)
class Pace:
    """How many sessions the scan reads at once, and the pause after them, for all servers."""

    sessions: int
    pause: timedelta


FIRST: Final = Pace(500, timedelta(milliseconds=250))
"""The pace of the first scan after a confirmation."""

LATER: Final = Pace(500, timedelta(seconds=10))
"""The pace of the scan once it has been through all sessions."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """The outcome of a page of the scan.

    Attributes:
        sessions: how many sessions it read.
        set: for how many of them it wrote when to look at them.
        is_whole: whether all sessions have been read since the confirmation.
    """

    sessions: int
    set: int
    is_whole: bool


class ScanStore(Part):
    """Goes through all sessions, page by page."""

    @operation(together=True)
    def scan(
        self, policy: Policy, *, first_pace: Pace = FIRST, later: Pace = LATER
    ) -> Asking[Scanned | None]:
        """Read the next page, and write for its sessions when to look at them.

        None: it is not time for a page yet, or another policy is confirmed. Sessions of stock ADK
        get a record if they have a message. Records, moments and the place at which the next page
        begins are one transaction. A repeat reads the page after it, or none.
        """
        turn = yield from first(
            "scan_turn",
            policy_digest=policy.digest,
            pause=first_pace.pause,
            later_pause=later.pause,
        )
        if turn is None:
            return None
        limit = (later if turn["is_whole"] else first_pace).sessions
        start = SessionKey(turn["after_app"], turn["after_user"], turn["after_session"])
        found = yield from rows("scan_page", limit=limit, **after(start))
        is_last = len(found) < limit
        checks = yield from self._checks(found, policy, is_first=not turn["is_whole"])
        if checks:
            yield from _written(checks)
        end = SessionKey("", "", "") if is_last else key_of(found[-1])
        yield from rows("scan_on", is_last=is_last, **after(end))
        return Scanned(len(found), len(checks), is_last or bool(turn["is_whole"]))

    @operation()
    def check_user(self, key: SessionKey) -> Asking[None]:
        """Have all used sessions of the key's user in its app looked at soon. A repeat does too."""
        yield from rows("check_user", key)

    def _checks(
        self, found: Sequence[Row], policy: Policy, *, is_first: bool
    ) -> Asking[Sequence[tuple[SessionKey, datetime]]]:
        """Make the missing records, and return the moments to write."""
        missing = [key_of(row) for row in found if row["status"] is None]
        missing = [key for key in missing if policy.of(key.app_name).archives]
        made: Sequence[Row] = (yield from _recorded(missing)) if missing else ()
        used = [row for row in found if row["status"] == Status.USED]
        checks = []
        users = set()
        for row in (*used, *made):
            limits = policy.of(row["app_name"])
            check_at = _check_at(row, policy, is_first=is_first)
            if check_at is not None:
                checks.append((key_of(row), check_at))
            if limits.per_user is not None and not is_first and row["check_at"] is None:
                users.add(key_of(row)._replace(session_id=""))
        for user in sorted(users):
            yield from rows("check_user", user)
        return checks


def _recorded(keys: Sequence[SessionKey]) -> Asking[Sequence[Row]]:
    is_sqlite = (yield from dialect()) is Dialect.SQLITE
    asked: Any = {"keys": json.dumps(keys)} if is_sqlite else names_of(keys)
    made = yield from rows("record_page", ttl=DEFAULT_TTL, **asked)
    for row in made:
        yield from counted(key_of(row), None, None, Status.USED)
    return made


def _written(checks: Sequence[tuple[SessionKey, datetime]]) -> Asking[None]:
    if (yield from dialect()) is Dialect.SQLITE:
        yield from rows("check_page", checks=[[*key, check_at] for key, check_at in checks])
        return
    names = names_of([key for key, _ in checks])
    yield from rows("check_page", check_ats=[check_at for _, check_at in checks], **names)


def _check_at(row: Row, policy: Policy, *, is_first: bool) -> datetime | None:
    """Return when to look at a used session; None leaves what its record says."""
    limits, known = policy.of(row["app_name"]), row["check_at"]
    if not limits.archives:
        return None
    now: datetime = row["now"]
    if limits.per_user is not None and (known is None or is_first):
        return now  # only a look tells how many of the user's sessions were active later
    moments = (row["first_message_at"], row["active_at"], row["last_event"])
    standing = Standing(
        now=now,
        began_at=row["restored_at"] or row["first_message_at"],
        active_at=max(moment for moment in moments if moment is not None),
    )
    found, warned_at = look(limits, standing), row["warned_at"]
    if warned_at is not None and warned_at >= standing.active_at:
        # What was told is true unless another policy is confirmed since.
        return None if found.at == known else now
    due = now if found.warns else found.at
    if known is None or due is None:
        return due
    # What is exempt was due when it was looked at, and is looked at again before long.
    is_sooner = due < known and (due > now or known > now + RECHECK)
    return due if is_sooner else None
