"""When something is wrong: what `lapse check`, the operators' pages and the alerts of `ops/` share.

The alerts are text, so a test compares their numbers with this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

SWEEPER_SILENT: Final = timedelta(minutes=2)
"""A working sweeper, in any process, reports every 15 s; after this silence none works."""

OVERDUE: Final = timedelta(minutes=1)
"""A sweeper that works reaches a due session within a second; this late, sweeps do not keep up."""

HEARD_WITHIN: Final = timedelta(hours=1)
"""The share of first messages that found an expired session is taken over this time."""

FOUND_EXPIRED: Final = 0.1
"""A larger share of first messages that found an expired session: the TTL is too short."""

ENOUGH_HEARD: Final = 50
"""With this many first messages or fewer the share says nothing."""

WEBHOOK_BEHIND: Final = timedelta(minutes=5)
"""An event waits longer than this if the webhook refuses it, or takes events too slowly."""

RETENTION_BEHIND: Final = timedelta(hours=1)
"""A sweep by a retention policy looks every two seconds; this late, it does not keep up."""

POLICY_UNCONFIRMED: Final = timedelta(days=1)
"""A retention policy that nobody has confirmed for so long is forgotten, and takes nothing."""

IN_ALERTS: Final[Mapping[str, tuple[float, ...]]] = {
    "LapseSweeperStalled": (SWEEPER_SILENT.total_seconds(),),
    "LapseSessionsOverdue": (OVERDUE.total_seconds(),),
    "LapseResurrectionSpike": (FOUND_EXPIRED, ENOUGH_HEARD),
    "LapseWebhookBehind": (WEBHOOK_BEHIND.total_seconds(),),
    "LapseRetentionBehind": (RETENTION_BEHIND.total_seconds(),),
    "LapseRetentionUnconfirmed": (POLICY_UNCONFIRMED.total_seconds(),),
}
"""The limits in the expression of each alert, in their order."""


def is_silent(swept_at: datetime | None, now: datetime) -> bool:
    """Return whether no sweeper works, by the time at which one last reported; None: never."""
    return swept_at is None or now - swept_at > SWEEPER_SILENT


def is_overdue(late: timedelta) -> bool:
    """Return whether the session that is overdue the longest has waited too long for a sweep."""
    return late > OVERDUE


def is_webhook_behind(oldest: timedelta, given_up: int) -> bool:
    """Return whether events wait too long for the webhook, or some were given up."""
    return oldest > WEBHOOK_BEHIND or given_up > 0


def is_retention_behind(overdue: timedelta) -> bool:
    """Return whether a session has waited too long for a sweep by the retention policy."""
    return overdue > RETENTION_BEHIND


def is_policy_forgotten(unconfirmed_for: timedelta, faults: int) -> bool:
    """Return whether a retention policy has been without effect too long, or has faults."""
    return unconfirmed_for > POLICY_UNCONFIRMED or faults > 0


def are_too_many_expired(resurrected: int, first_messages: int) -> bool:
    """Return whether too many first messages within HEARD_WITHIN found an expired session."""
    if first_messages <= ENOUGH_HEARD:
        return False
    return resurrected > FOUND_EXPIRED * first_messages
