"""A round of decisions over all scopes: what the server does each hour and the simulator, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from lapse.core.ages import Histogram
from lapse.ttl.deciding import decide, guard
from lapse.ttl.decision import Decision, Targets
from lapse.ttl.observed import Cohort, Scope

Standing = Mapping[Scope, Decision]
"""The newest decision of each scope."""


def ttl_of(scope: Scope, standing: Standing, default: timedelta) -> timedelta:
    """Return the TTL of a scope: its own, else its app's, else the default."""
    for candidate in (scope, Scope(scope.app_name)):
        decision = standing.get(candidate)
        if decision is not None and decision.ttl is not None:
            return decision.ttl
    return default


def daily(
    cohorts: Mapping[Scope, Sequence[Cohort]], standing: Standing, targets: Targets, now: datetime
) -> list[Decision]:
    """Return the decision of the day for each scope."""
    return [
        decide(
            scope,
            days,
            standing.get(scope),
            targets,
            now,
            followed=ttl_of(Scope(scope.app_name), standing, targets.default),
        )
        for scope, days in cohorts.items()
    ]


def hourly(
    recent: Mapping[Scope, Histogram], standing: Standing, targets: Targets, now: datetime
) -> list[Decision]:
    """Return a decision for each scope whose newest first messages ask for a longer TTL."""
    decisions = []
    for scope, ages in recent.items():
        followed = ttl_of(Scope(scope.app_name), standing, targets.default)
        raised = guard(scope, ages, standing.get(scope), targets, now, followed=followed)
        if raised is not None:
            decisions.append(raised)
    return decisions
