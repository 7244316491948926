"""The confirmation of a policy, and what a policy would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lapse.retention.rules import Policy
from lapse.store.operation import NO_SESSION, Asking, Part, done_before, first, operation, rows
from lapse.store.riders import audited

BRAKED: Final = timedelta(hours=1)
"""A brake is released by itself after this time, and its release by hand counts as confirmed."""

WEEKS: Final = 12
"""A preview tells of so many weeks; what falls due after them counts as due in the next one."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Which policy was confirmed, by its digest and as JSON, by whom and when."""

    digest: str
    policy: str
    confirmed_at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Falling:
    """Used sessions of one app that a policy would take.

    Attributes:
        app_name: the app.
        week: 0: they are due now; else the week from now in which they fall due, if nothing
            happens in them until then; WEEKS + 1: later, or never.
        age: how many of AGES their age exceeds.
        exempt: how many of them are pinned or on hold.
        sessions: how many they are.
    """

    app_name: str
    week: int
    age: int
    exempt: int
    sessions: int


class RetentionStore(Part):
    """The confirmed policy, and what a policy would take."""

    @operation(writes=False)
    def retention_confirmed(self) -> Asking[Confirmation | None]:
        """Return the last confirmation; None if no policy was ever confirmed."""
        row = yield from first("retention_confirmed")
        if row is None:
            return None
        return Confirmation(
            row["policy_digest"], row["policy"], row["confirmed_at"], row["principal"]
        )

    @operation(together=True)
    def confirm_retention(self, policy: Policy, *, by: str) -> Asking[bool]:
        """Confirm a policy, in place of the one before; False if it was confirmed already.

        The audit log records it. A repeat is recognised by the policy's digest: it finds the policy
        confirmed, and then returns False.
        """
        done = yield from rows(
            "confirm_retention", policy_digest=policy.digest, policy=policy.text, by=by
        )
        if not done:
            return False
        act = audited(NO_SESSION, by, "retention-confirmed", policy=policy.digest[:12])
        yield from rows("record_act", **act)
        yield from rows("owe_confirmed_webhook")
        return True

    @operation()
    def brake_purge(self, since: datetime, sessions: int) -> Asking[bool]:
        """Set the sweepers' brake, because a purge would take so many sessions for good.

        False: an operator has released such a brake within the hour, which counts as confirmed. A
        repeat finds the brake set, which is told by its reason and `since`.
        """
        answer = yield from rows(
            "set_brake",
            reason="share",
            braked_at=since,
            braked_until=since + BRAKED,
            sessions=sessions,
            jump=timedelta(0),
            confirmed=BRAKED,
        )
        return bool(answer) or (yield from done_before(answer)) is not None

    @operation(writes=False)
    def preview_retention(self, policy: Policy) -> Asking[Sequence[Falling]]:
        """Return what a policy would take now and in the coming weeks; it reads all sessions.

        Runs in flight and awaited answers are not looked at.
        """
        found = yield from rows("preview_retention", policy=policy.text, weeks=WEEKS)
        return [
            Falling(row["app_name"], row["week"], row["age"], row["exempt"], row["sessions"])
            for row in found
        ]
