"""The JSON of policies, previews and holds: the same for HTTP and the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lapse.core.clock import iso, iso_or_none
from lapse.retention.exemptions import Hold
from lapse.retention.rules import Limits, Policy
from lapse.retention.state import RetentionState
from lapse.retention.store import WEEKS, Falling

AGES: Final = ("30 days", "90 days", "180 days", "365 days")
"""The ages by which sessions are told apart: each has exceeded so many of them."""


def policy_json(policy: Policy) -> dict[str, Any]:
    """Return what a policy says, with the digest that a confirmation of it names."""
    return {
        "digest": policy.digest,
        "default": _limits(policy.default),
        "limitsOfApps": [{"appName": app, **_limits(own)} for app, own in policy.apps.items()],
    }


def preview_json(found: Sequence[Falling]) -> list[dict[str, Any]]:
    """Return what a policy would take, by app."""
    return [
        {
            "appName": app,
            "sessions": sum(one.sessions for one in own),
            "exempt": sum(one.exempt for one in own),
            "dueNow": due_by_week(own)[0],
            "dueByWeek": due_by_week(own)[1:-1],
            "dueNowByAge": due_by_age(own),
        }
        for app, own in by_app(found).items()
    ]


def hold_json(hold: Hold) -> dict[str, str | None]:
    """Return a hold as JSON; null is all apps, or all sessions."""
    return {
        "appName": hold.key.app_name or None,
        "userId": hold.key.user_id,
        "sessionId": hold.key.session_id or None,
        "since": iso(hold.since),
        "by": hold.by,
        "reason": hold.reason,
    }


def state_json(state: RetentionState) -> dict[str, Any]:
    """Return how retention stands; `policy` is null without one that can be read."""
    confirmed = state.confirmation
    return standing_json(state) | {
        "policy": None if state.policy is None else policy_json(state.policy),
        "problems": list(state.problems),
        "confirmedDigest": None if confirmed is None else confirmed.digest,
        "confirmedBy": None if confirmed is None else confirmed.by,
        "confirmedAt": iso_or_none(None if confirmed is None else confirmed.confirmed_at),
    }


def standing_json(state: RetentionState) -> dict[str, Any]:
    """Return how retention stands in numbers: what is archived, pinned and on hold, and due."""
    return {
        "inForce": state.is_in_force,
        "faults": state.faults,
        "unconfirmedSeconds": state.unconfirmed_for.total_seconds(),
        "archived": state.levels.archived,
        "pinned": state.levels.pinned,
        "holds": state.levels.holds,
        "due": state.due,
        "overdueSeconds": state.overdue.total_seconds(),
    }


def by_app(found: Sequence[Falling]) -> Mapping[str, Sequence[Falling]]:
    """Return what a policy would take of each app."""
    apps: dict[str, list[Falling]] = {}
    for one in found:
        apps.setdefault(one.app_name, []).append(one)
    return apps


def due_by_week(found: Sequence[Falling]) -> list[int]:
    """Return how many sessions fall due now, in each week from now, and later or never."""
    weeks = Counter[int]()
    for one in found:
        weeks[one.week] += one.sessions - one.exempt
    return [weeks[week] for week in range(WEEKS + 2)]


def due_by_age(found: Sequence[Falling]) -> list[int]:
    """Return how many sessions are due now, by how many of AGES they exceed."""
    due = Counter[int]()
    for one in found:
        due[one.age] += (one.sessions - one.exempt) * (one.week == 0)
    return [due[age] for age in range(len(AGES) + 1)]


def ages() -> list[str]:
    """Return the names of the ages, in the order of `due_by_age`."""
    return [f"up to {AGES[0]}", *(f"over {age}" for age in AGES)]


def _limits(limits: Limits) -> dict[str, float | None]:
    durations = {name: getattr(limits, name) for name in ("idle", "age", "archive", "awaiting")}
    return {
        **{
            f"{name}Seconds": None if one is None else one.total_seconds()
            for name, one in durations.items()
        },
        "perUser": limits.per_user,
    }
