"""The decisions of all scopes in one round; the server and the simulator make rounds hourly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from lapse.core.ages import Histogram
from lapse.ttl.deciding import decide, guard
from lapse.ttl.decision import Decision, Targets
from lapse.ttl.observed import Cohort, Scope

DecisionsInForce = Mapping[Scope, Decision]
"""The newest decision of each scope: the one that is in force."""


def ttl_of(scope: Scope, in_force: DecisionsInForce, default: timedelta) -> timedelta:
    """Return the TTL of a scope: its own, else its app's, else the default."""
    for candidate in (scope, Scope(scope.app_name)):
        decision = in_force.get(candidate)
        if decision is not None and decision.ttl is not None:
            return decision.ttl
    return default


def daily(
    cohorts: Mapping[Scope, Sequence[Cohort]],
    in_force: DecisionsInForce,
    targets: Targets,
    now: datetime,
) -> list[Decision]:
    """Return the daily decision of each scope that has cohorts."""
    return [
        decide(
            scope,
            days,
            in_force.get(scope),
            targets,
            now,
            followed=ttl_of(Scope(scope.app_name), in_force, targets.default),
        )
        for scope, days in cohorts.items()
    ]


def hourly(
    recent: Mapping[Scope, Histogram], in_force: DecisionsInForce, targets: Targets, now: datetime
) -> list[Decision]:
    """Return a decision for each scope whose newest first messages ask for a longer TTL."""
    decisions = []
    for scope, ages in recent.items():
        followed = ttl_of(Scope(scope.app_name), in_force, targets.default)
        raised = guard(scope, ages, in_force.get(scope), targets, now, followed=followed)
        if raised is not None:
            decisions.append(raised)
    return decisions
