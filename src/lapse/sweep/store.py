"""The operations of a sweeper besides expiring and purging: the brake, and what is due."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import ChangeKind, Expiries, Status
from lapse.store.operation import Asking, Part, Row, done_before, first, only, operation, rows
from lapse.store.riders import counted
from lapse.sweep.rules import CONFIRMED, Brake, BrakeReason, Dues

_MICROSECONDS: Final = 1_000_000


class SweepStore(Part):
    """The brake of all sweepers, the count of what is due, and the time of the last sweep."""

    @operation(writes=False)
    def dues(self, *, most: int) -> Asking[Dues]:
        """Return how many sessions are due to expire and to be purged, each counted up to `most`.

        It counts none while the rules are not enforced.
        """
        row = yield from only("dues", most=most if self.rules.enforced else 0)
        return Dues(row["now"], row["expire"], row["purge"], row["stored"], brake_of(row))

    @operation()
    def expire_backlog(self, limit: int) -> Asking[Sequence[Expiries]]:
        """Expire at most `limit` sessions as `expire_due` does, and return them by app.

        It leaves to `expire_due` what deserves a change of its own: sessions that ADK's tables
        hold, and any that once had a message, which must not be. It does nothing while the rules
        are not enforced, or while a brake is set and nothing is restorable. A repeat expires what
        is still due.
        """
        if not self.rules.enforced:
            return ()
        found = yield from rows("expire_backlog", limit=limit)
        of_apps = tuple(_expiries_of(row) for row in found)
        for one in of_apps:
            app, sessions = SessionKey(one.app_name, "", ""), len(one)
            yield from counted(app, ChangeKind.EXPIRED, Status.WAITING, Status.EXPIRED, sessions)
        return of_apps

    @operation(flushed=False)
    def mark_swept(self) -> Asking[datetime]:
        """Record that a sweeper works, and return the store's time; a crash may undo it.

        A repeat records it again.
        """
        row = yield from only("mark_swept")
        swept_at: datetime = row["swept_at"]
        return swept_at

    @operation(writes=False)
    def brake(self) -> Asking[Brake | None]:
        """Return the brake that is set, even if its time is over; None if none is set."""
        row = yield from first("brake")
        return None if row is None else brake_of(row)

    @operation()
    def set_brake(self, brake: Brake) -> Asking[bool]:
        """Set a brake: it holds every purge and, with a horizon of zero, every expiry.

        It returns False and changes nothing if a brake is set already, or if the new one is for the
        share and the last one was released less than CONFIRMED ago. A jump of the clock is the
        graver reason: its brake replaces one for the share, and one whose time the jump has ended.
        A repeat is recognised by the note of the first attempt, and a brake by its reason and
        `since`: one that was released meanwhile stays released.
        """
        answer = yield from rows(
            "set_brake",
            reason=brake.reason,
            braked_at=brake.since,
            braked_until=brake.until,
            sessions=brake.sessions,
            jump=brake.jump,
            confirmed=CONFIRMED,
        )
        return bool(answer) or (yield from done_before(answer)) is not None

    @operation()
    def release_brake(self, *, since: datetime) -> Asking[bool]:
        """Release the brake that was set at `since`; False if it is no longer set.

        A repeat is recognised by the note of the first attempt.
        """
        answer = yield from rows("release_brake", braked_at=since)
        return bool(answer) or (yield from done_before(answer)) is not None


def brake_of(row: Row) -> Brake | None:
    """Return the brake in a row; None if it has none."""
    if row["reason"] is None:
        return None
    return Brake(
        BrakeReason(row["reason"]),
        row["braked_at"],
        row["braked_until"],
        row["held_back"],
        row["jump"],
    )


def _expiries_of(row: Row) -> Expiries:
    latenesses = sorted(json.loads(row["latenesses"]))
    seconds = tuple([lateness / _MICROSECONDS for lateness in latenesses])
    return Expiries(row["app_name"], row["now"], seconds, row["named"])
