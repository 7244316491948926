"""The rule that turns counts of first messages into a TTL, with its reason and a guarantee.

The TTL is the smallest age after which, with a stated confidence, at most the target's share of
the first messages comes. As long as first messages come as they did before, a decision misses the
target with at most `doubt`, whatever their distribution. The reason: the true share of later
messages only falls with age. The choice is too short only if the bound is wrong at one age, the
last one after which more than the target's share comes; it is wrong there with at most `doubt`.
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
"""A decision uses at most this many days of creation."""

ENOUGH_MESSAGES: Final = 8_000
"""Once the newest days have this many first messages, older days are left out."""

GUARD_MESSAGES: Final = 400
"""The guard looks at this many of the newest first messages."""

GUARD_MIN_MESSAGES: Final = 100
"""With fewer first messages than this, the guard does nothing."""

GUARD_MAX_AGE: Final = timedelta(hours=72)
"""The guard ignores first messages that came longer ago than this."""

_GUARD_DOUBT: Final = 0.001
"""The guard calls a TTL too short if so many late messages are less probable than this.

The probability is that at the target's share.
"""

_GUARD_MARGIN: Final = 1.05
"""The guard raises the TTL only if the required one is longer by more than this factor."""

_CONTROL_DOUBT: Final = 0.001
"""The control group raises an alarm if chance makes such a difference with less probability."""

_DAYS_BEFORE_RAISE: Final = timedelta(days=2)
"""When the guard raises the TTL, days older than this no longer count."""

_MAX_STEP_DOWN: Final = 0.8
"""A decision lowers the TTL to no less than this part of the present one."""

_MIN_STEP_DOWN: Final = 0.9
"""A TTL that would stay above this part of the present one is not lowered."""

_WITHDRAWN_ALARM: Final = 0.01
"""A larger share of sessions deleted before any message makes the counts doubtful."""


def decide(
    scope: Scope,
    days: Iterable[Cohort],
    last: Decision | None,
    targets: Targets,
    now: datetime,
    *,
    followed: timedelta | None = None,
) -> Decision:
    """Return the daily decision of a scope.

    With too few first messages it keeps the TTL of `last`, with the reason TOO_FEW.

    Args:
        scope: the app or segment that the decision is for.
        days: the cohorts of the scope, in any order; days that are not mature, and days before
            the window, are left out.
        last: the decision in force; None for a scope without one.
        targets: the target shares and the limits of the TTL.
        now: the store's time.
        followed: the TTL that the scope uses while it has none of its own; None: the default.
    """
    window_from = last.window_from if last else None
    if last and last.horizon < targets.horizon:
        # Older sessions were observed for the shorter horizon only: later messages are not known.
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
    later = (whole.control if alarm else whole.first_messages).later_than(edge)
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
        return _with_misses(base, later, targets)
    wanted = _smallest_ttl(later, targets)
    ttl = _limited(wanted or targets.cap, current, targets, held=base.held_until is not None)
    if wanted is None:
        reason = Reason.INFEASIBLE
    else:
        reason = Reason.CHOSEN if ttl <= max(wanted, targets.floor) else Reason.HELD
    decision = replace(base, reason=reason, ttl=ttl, wanted=wanted or targets.cap)
    return _with_misses(decision, later, targets)


def guard(
    scope: Scope,
    recent: Histogram,
    last: Decision | None,
    targets: Targets,
    now: datetime,
    *,
    followed: timedelta | None = None,
) -> Decision | None:
    """Return a decision that raises the TTL if the newest first messages require it, else None.

    Args:
        scope: the app or segment that the decision is for.
        recent: the ages of the newest GUARD_MESSAGES first messages, without messages that came
            longer than GUARD_MAX_AGE ago.
        last: the decision in force; None for a scope without one.
        targets: the target shares and the limits of the TTL.
        now: the store's time.
        followed: the TTL that the scope uses while it has none of its own; None: the default.
    """
    edge = edge_at_most(targets.horizon)
    later = recent.later_than(edge)
    current = (last.ttl if last else None) or followed or targets.default
    if later[0] < GUARD_MIN_MESSAGES:
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
        window_from=(now - _DAYS_BEFORE_RAISE).date(),
        held_until=now + targets.horizon,
        horizon=targets.horizon,
        targets=targets.as_document(),
    )
    return _with_misses(decision, later, targets)


def reset_window(last: Decision, now: datetime) -> Decision:
    """Return a decision with the same TTL for which days before today no longer count."""
    return replace(last, at=now, reason=Reason.RESET, window_from=now.date())


def _window(
    days: Iterable[Cohort], window_from: date | None, targets: Targets, now: datetime
) -> Sequence[Cohort]:
    """Return the newest mature days, newest first, until they have ENOUGH_MESSAGES."""
    edge = edge_at_most(targets.horizon)
    chosen: list[Cohort] = []
    heard = 0
    oldest = now.date() - timedelta(days=WINDOW_DAYS) - targets.horizon
    if window_from is not None:
        oldest = max(oldest, window_from)
    for day in sorted(days, key=lambda day: day.day, reverse=True):
        if day.day < oldest or len(chosen) >= WINDOW_DAYS or heard >= ENOUGH_MESSAGES:
            break
        if day.mature(now, targets.horizon):
            chosen.append(day)
            heard += day.first_messages.later_than(edge)[0]
    return chosen


def _is_too_few(observations: int, targets: Targets) -> bool:
    """Return whether even without a single late message the target would not be proved."""
    return at_most(0, _effective_trials(observations, targets), targets.soft) > targets.doubt


def _smallest_ttl(later: Sequence[int], targets: Targets) -> timedelta | None:
    """Return the smallest age whose upper bound meets the target; None if none up to the cap does.

    The upper bound meets the target exactly if, at a share equal to the target, a count this low
    has a probability of at most `doubt`. This test needs no search for the bound itself.
    """
    trials = _effective_trials(later[0], targets)
    for j in range(1, len(later) - 1):
        if EDGES[j] > targets.cap:
            break
        misses = _effective_misses(later[j], trials, targets)
        if at_most(misses, trials, targets.soft) <= targets.doubt:
            return EDGES[j]
    return None


def _limited(wanted: timedelta, current: timedelta, targets: Targets, *, held: bool) -> timedelta:
    """Return the TTL after the limits of its steps.

    It rises at once. It falls by at least a tenth and at most a fifth, and not at all while `held`.
    It stays between the floor and the cap.
    """
    if wanted < current and (held or wanted > _MIN_STEP_DOWN * current):
        return min(max(current, targets.floor), targets.cap)
    return min(max(wanted, _MAX_STEP_DOWN * current, targets.floor), targets.cap)


def _control_alarm(whole: Cohort, current: timedelta, edge: int) -> bool:
    """Return whether the control group has more late messages than others, beyond chance."""
    at = min(edge_at_most(current), edge)
    control, others = whole.control.later_than(edge), whole.used.later_than(edge)
    return excess(control[at], control[0], others[at], others[0]) < _CONTROL_DOUBT


def _with_misses(decision: Decision, later: Sequence[int], targets: Targets) -> Decision:
    """Return the decision with the number of late messages, and the bound of their share."""
    at = min(edge_at_most(decision.ttl or targets.default), len(later) - 1)
    trials = _effective_trials(later[0], targets)
    missed = _effective_misses(later[at], trials, targets)
    bound = upper(missed, trials, targets.doubt) if trials else None
    return replace(decision, missed=later[at], bound=bound)


def _effective_trials(observations: int, targets: Targets) -> int:
    """Return for how many independent observations dependent ones count."""
    return int(observations / targets.design_effect)


def _effective_misses(missed: int, trials: int, targets: Targets) -> int:
    """Return for how many independent misses dependent ones count, rounded up to be safe."""
    return min(trials, ceil(missed / targets.design_effect))
