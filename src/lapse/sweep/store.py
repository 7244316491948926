"""The operations of a sweeper besides expiring and purging: the brake, and what is due."""

from __future__ import annotations

from datetime import datetime

from lapse.store.operation import Asking, Part, Row, done_before, first, only, operation, rows
from lapse.sweep.rules import CONFIRMED, Brake, BrakeReason, Dues


class SweepStore(Part):
    """The brake of all sweepers, the count of what is due, and the time of the last sweep."""

    @operation(writes=False)
    def dues(self, *, most: int) -> Asking[Dues]:
        """Return how many sessions are due to expire and to be purged, each counted up to `most`.

        It counts none while the rules are not enforced.
        """
        row = yield from only("dues", most=most if self.rules.enforced else 0)
        return Dues(row["now"], row["expire"], row["purge"], row["stored"], brake_of(row))

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
