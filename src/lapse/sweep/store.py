"""What a sweeper asks of a store beyond expiring and purging: its brake, and what is due."""

from __future__ import annotations

from datetime import datetime

from lapse.store.operation import Asking, Part, Row, first, only, operation
from lapse.sweep.rules import CONFIRMED, Brake, BrakeReason, Dues


class SweepStore(Part):
    """The brake of all sweepers, what is due, and the sign that a sweeper works."""

    @operation(writes=False)
    def dues(self, *, most: int) -> Asking[Dues]:
        """Return how many sessions are due, counted up to `most` each. Changes nothing."""
        row = yield from only("dues", most=most if self.rules.enforced else 0)
        return Dues(row["now"], row["expire"], row["purge"], row["stored"], brake_of(row))

    @operation(flushed=False)
    def mark_swept(self) -> Asking[datetime]:
        """Note that a sweeper works, and return the store's time; a crash may undo it."""
        row = yield from only("mark_swept")
        swept_at: datetime = row["swept_at"]
        return swept_at

    @operation(writes=False)
    def brake(self) -> Asking[Brake | None]:
        """Return the brake that is set, whether it would let go by itself or not."""
        row = yield from first("brake")
        return None if row is None else brake_of(row)

    @operation()
    def set_brake(self, brake: Brake) -> Asking[bool]:
        """Hold back what cannot be undone: every purge, and with a horizon of zero every expiry.

        False, and nothing, where a brake is set already, or where it is for the share and
        another one was released less than CONFIRMED ago. A jump of the clock is the graver
        reason: its brake takes the place of one for the share, and of one whose time the
        jump has ended.
        """
        row = yield from first(
            "set_brake",
            reason=brake.reason,
            braked_at=brake.since,
            braked_until=brake.until,
            sessions=brake.sessions,
            jump=brake.jump,
            confirmed=CONFIRMED,
        )
        return row is not None

    @operation()
    def release_brake(self, *, since: datetime) -> Asking[bool]:
        """Let go of the brake that was set at `since`; False where it is set no more."""
        row = yield from first("release_brake", braked_at=since)
        return row is not None


def brake_of(row: Row) -> Brake | None:
    """Return the brake of a row that may have one."""
    if row["reason"] is None:
        return None
    return Brake(
        BrakeReason(row["reason"]),
        row["braked_at"],
        row["braked_until"],
        row["held_back"],
        row["jump"],
    )
