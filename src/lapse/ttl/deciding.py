"""The rule: from counts of first messages to a TTL, with its reason and a guarantee.

The TTL is the smallest age of which it is certain, but for a stated doubt, that no more than
the target's share of the first messages comes later. Where first messages come as they came
before, a decision breaks the target with at most that doubt, whatever their distribution:
the exact bound falls with age, so only its failing at one age, the last that misses too much,
can make the choice too short.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from math import ceil
from typing import Final

from lapse.core.ages import EDGES, Histogram, edge_at_most
from lapse.ttl.binomial import at_least, at_most, excess, upper
from lapse.ttl.decision import Decision, Reason, Targets
from lapse.ttl.observed import Cohort, Scope

WINDOW_DAYS: Final = 28
ENOUGH: Final = 8_000
"""First messages after which older days are left out."""

GUARD_MESSAGES: Final = 400
GUARD_LEAST: Final = 100
GUARD_REACH: Final = timedelta(hours=72)
"""The guard looks at this many first messages, not fewer than so many, not older than so."""

_GUARD_DOUBT: Final = 0.001
_CONTROL_DOUBT: Final = 0.001
_GUARD_MARGIN: Final = 1.05
_DAYS_KEPT: Final = timedelta(days=2)
"""After an alarm, days older than this are of another time."""

_SLOWEST_FALL: Final = 0.8
_LEAST_FALL: Final = 0.9
_WITHDRAWN_ALARM: Final = 0.01


def decide(
    scope: Scope,
    days: Iterable[Cohort],
    last: Decision | None,
    targets: Targets,
    now: datetime,
    *,
    followed: timedelta | None = None,
) -> Decision:
    """Make the decision of a day.

    Args:
        scope: what it is for.
        days: its cohorts; those that are not mature, or before the window, are left out.
        last: the decision that stands.
        targets: what to aim at.
        now: the store's time.
        followed: the TTL of those without one of their own; the default where it is None.
    """
    window_from = last.window_from if last else None
    if last and last.horizon < targets.horizon:
        # Days that were watched for less than the horizon do not tell what comes within it.
        window_from = now.date()
    window = _window(days, window_from, targets, now)
    held_until = last.held_until if last else None
    base = Decision(
        scope,
        now,
        Reason.TOO_FEW,
        ttl=last.ttl if last else None,
        window_from=window_from,
        held_until=held_until if held_until and held_until > now else None,
        horizon=targets.horizon,
        targets=targets.as_document(),
    )
    if not window:
        return base
    whole = sum(window[1:], window[0])
    current = (last.ttl if last else None) or followed or targets.default
    edge = edge_at_most(targets.horizon)
    alarm = _control_alarm(whole, current, edge)
    later = (whole.control if alarm else whole.heard).later_than(edge)
    observations = later[0]
    base = replace(
        base,
        observations=observations,
        first_day=window[-1].day,
        last_day=window[0].day,
        refused=whole.refused,
        withdrawn=sum(whole.withdrawn.counts) > _WITHDRAWN_ALARM * whole.counted,
        control_alarm=alarm,
    )
    if _is_too_few(observations, targets):
        return _measured(base, later, targets)
    wanted = _smallest(later, targets)
    ttl = _moved(wanted or targets.cap, current, targets, held=base.held_until is not None)
    if wanted is None:
        reason = Reason.INFEASIBLE
    else:
        reason = Reason.CHOSEN if ttl <= max(wanted, targets.floor) else Reason.HELD
    decision = replace(base, reason=reason, ttl=ttl, wanted=wanted or targets.cap)
    return _measured(decision, later, targets)


def guard(
    scope: Scope,
    recent: Histogram,
    last: Decision | None,
    targets: Targets,
    now: datetime,
    *,
    followed: timedelta | None = None,
) -> Decision | None:
    """Return a decision that raises the TTL where the newest first messages ask for it.

    Args:
        scope: what it is for.
        recent: the newest GUARD_MESSAGES ages of first messages, none heard before GUARD_REACH.
        last: the decision that stands.
        targets: what to aim at.
        now: the store's time.
        followed: as for `decide`.
    """
    edge = edge_at_most(targets.horizon)
    later = recent.later_than(edge)
    current = (last.ttl if last else None) or followed or targets.default
    if later[0] < GUARD_LEAST:
        return None
    need = EDGES[
        bisect_left(
            range(len(later)),
            True,
            key=lambda j: at_least(later[j], later[0], targets.soft) >= _GUARD_DOUBT,
        )
    ]
    raised = min(need, targets.cap)
    if need <= _GUARD_MARGIN * current or raised <= current:
        return None
    decision = Decision(
        scope,
        now,
        Reason.RAISED,
        ttl=raised,
        wanted=need,
        observations=later[0],
        window_from=(now - _DAYS_KEPT).date(),
        held_until=now + targets.horizon,
        horizon=targets.horizon,
        targets=targets.as_document(),
    )
    return _measured(decision, later, targets)


def reset_window(last: Decision, now: datetime) -> Decision:
    """Return a decision that forgets the days before this one; the TTL stays."""
    return replace(last, at=now, reason=Reason.RESET, window_from=now.date())


def _window(
    days: Iterable[Cohort], window_from: date | None, targets: Targets, now: datetime
) -> Sequence[Cohort]:
    """Return the newest mature days, as many as are enough, the newest first."""
    edge = edge_at_most(targets.horizon)
    chosen: list[Cohort] = []
    heard = 0
    oldest = now.date() - timedelta(days=WINDOW_DAYS) - targets.horizon
    if window_from is not None:
        oldest = max(oldest, window_from)
    for day in sorted(days, key=lambda day: day.day, reverse=True):
        if day.day < oldest or len(chosen) >= WINDOW_DAYS or heard >= ENOUGH:
            break
        if day.mature(now, targets.horizon):
            chosen.append(day)
            heard += day.heard.later_than(edge)[0]
    return chosen


def _is_too_few(observations: int, targets: Targets) -> bool:
    """Return whether not even a sample without a miss could prove the target."""
    return at_most(0, _worth(observations, targets), targets.soft) > targets.doubt


def _smallest(later: Sequence[int], targets: Targets) -> timedelta | None:
    """Return the smallest age with a bound within the target; None where only the horizon has.

    The bound is within it exactly when a count this low, at a share of the target, would come
    with no more than the doubt.
    """
    trials = _worth(later[0], targets)
    for j in range(1, len(later) - 1):
        if EDGES[j] > targets.cap:
            break
        if at_most(_missed(later[j], trials, targets), trials, targets.soft) <= targets.doubt:
            return EDGES[j]
    return None


def _moved(wanted: timedelta, current: timedelta, targets: Targets, *, held: bool) -> timedelta:
    """Return where the TTL goes: up at once, down by a fifth at most, not by a little."""
    if wanted < current and (held or wanted > _LEAST_FALL * current):
        return min(max(current, targets.floor), targets.cap)
    return min(max(wanted, _SLOWEST_FALL * current, targets.floor), targets.cap)


def _control_alarm(whole: Cohort, current: timedelta, edge: int) -> bool:
    """Return whether the control group has more late messages than chance explains."""
    at = min(edge_at_most(current), edge)
    control, others = whole.control.later_than(edge), whole.used.later_than(edge)
    return excess(control[at], control[0], others[at], others[0]) < _CONTROL_DOUBT


def _measured(decision: Decision, later: Sequence[int], targets: Targets) -> Decision:
    """Return a decision with what its observations say of its TTL."""
    at = min(edge_at_most(decision.ttl or targets.default), len(later) - 1)
    trials = _worth(later[0], targets)
    missed = _missed(later[at], trials, targets)
    bound = upper(missed, trials, targets.doubt) if trials else None
    return replace(decision, missed=later[at], bound=bound)


def _worth(observations: int, targets: Targets) -> int:
    return int(observations / targets.design_effect)


def _missed(missed: int, trials: int, targets: Targets) -> int:
    return min(trials, ceil(missed / targets.design_effect))
