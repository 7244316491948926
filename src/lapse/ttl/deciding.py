"""The rule: from counts of first messages to a TTL, with its reason and a guarantee.

The TTL is the smallest age of which it is certain, but for a stated doubt, that no more than
the target's share of the first messages comes later. Where first messages come as they came
before, a decision breaks the target with at most that doubt, whatever their distribution:
the exact bound falls with age, so only its failing at one age, the last that misses too much,
can make the choice too short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import Any, Final, Self

from lapse.errors import InvalidValueError
from lapse.ttl.ages import EDGES, Histogram, edge_at_most
from lapse.ttl.bounds import at_least, at_most, excess, lower, upper
from lapse.ttl.minutes import DEFAULT_TTL
from lapse.ttl.observed import Cohort, Scope

WINDOW_DAYS: Final = 28
ENOUGH: Final = 8_000
"""First messages after which older days are left out."""

GUARD_MESSAGES: Final = 400
GUARD_LEAST: Final = 100
GUARD_REACH: Final = timedelta(hours=72)
"""The guard looks at this many first messages, not fewer than so many, not older than so."""

_GUARD_DOUBT: Final = 0.001
_AUDIT_DOUBT: Final = 0.001
_GUARD_MARGIN: Final = 1.05
_DAYS_KEPT: Final = timedelta(days=2)
"""After an alarm, days older than this are of another time."""

_SLOWEST_FALL: Final = 0.8
_LEAST_FALL: Final = 0.9
_WITHDRAWN_ALARM: Final = 0.01


class Reason(StrEnum):
    """Why the TTL is what it is."""

    TOO_FEW = "too few data"
    CHOSEN = "chosen"
    INFEASIBLE = "infeasible"
    HELD = "held by the step limit"
    RAISED = "raised by the guard"
    RESET = "window reset by an operator"


@dataclass(frozen=True, slots=True)
class Targets:
    """What the rule aims at, and within which limits.

    Attributes:
        soft: the share of first messages, among those within the horizon, that may find their
            session expired and have to resurrect it.
        hard: the share of first messages that may come when nothing is left to resurrect.
            The TTL has no influence on them: only a longer horizon has.
        doubt: how probable it may be that a decision breaks the soft target.
        floor: the shortest TTL.
        cap: the longest, and that of the audit arm; at most the horizon.
        horizon: for how long after its creation a session can be had back.
        design_effect: how many first messages are worth one, where they depend on each other.
        default: the TTL until there are enough data.
    """

    soft: float = 0.05
    hard: float = 0.005
    doubt: float = 0.05
    floor: timedelta = timedelta(minutes=5)
    cap: timedelta = timedelta(hours=24)
    horizon: timedelta = timedelta(hours=24)
    design_effect: float = 1.0
    default: timedelta = DEFAULT_TTL

    def __post_init__(self) -> None:
        if not self.floor <= self.cap <= self.horizon:
            reason = (
                f"the floor ({self.floor}), the cap ({self.cap}) and the horizon ({self.horizon}) "
                "must be in this order"
            )
            raise InvalidValueError("targets", reason)


@dataclass(frozen=True, slots=True)
class Decision:
    """A TTL for a scope, why, and what it was made from.

    Attributes:
        scope: what it is for.
        at: when it was made.
        reason: why.
        ttl: the TTL; None where the scope has none of its own and follows its app, or an app
            the default.
        wanted: what the data ask for, before limits to its movement.
        observations: first messages in the window.
        missed: those of them that came after the TTL.
        bound: the share that come after the TTL is at most this, but for the doubt.
        first_day: the first day of creation in the window, `last_day` the last.
        window_from: days before it do not count any more.
        held_until: until then the TTL does not fall.
        horizon: what it was when the decision was made.
        refused: messages of the window's sessions that came when they were purged.
        withdrawn: whether so many were deleted unheard that the count may be wrong.
        audit_alarm: whether the audit arm hears late messages that the others do not.
        targets: what was aimed at.
    """

    scope: Scope
    at: datetime
    reason: Reason
    ttl: timedelta | None = None
    wanted: timedelta | None = None
    observations: int = 0
    missed: int = 0
    bound: float | None = None
    first_day: date | None = None
    last_day: date | None = None
    window_from: date | None = None
    held_until: datetime | None = None
    horizon: timedelta = timedelta(0)
    refused: int = 0
    withdrawn: bool = False
    audit_alarm: bool = False
    targets: dict[str, float] = field(default_factory=dict)

    @property
    def soft_miss_rate(self) -> float | None:
        """Return the share of the window's first messages that came after the TTL."""
        return self.missed / self.observations if self.observations else None

    @property
    def hard_miss_rate(self) -> float | None:
        """Return the share of messages that came when nothing was left to resurrect."""
        heard = self.observations + self.refused
        return self.refused / heard if heard else None

    @property
    def horizon_too_short(self) -> bool:
        """Return whether it is beyond doubt that the hard target is missed."""
        heard = self.observations + self.refused
        target = self.targets.get("hard", 1.0)
        doubt = self.targets.get("doubt", 0.0)
        return self.refused > 0 and lower(self.refused, heard, doubt) > target

    def as_document(self) -> dict[str, Any]:
        """Return it as JSON has it; durations are in seconds."""

        def plain(value: Any) -> Any:
            if isinstance(value, timedelta):
                return value.total_seconds()
            return value.isoformat() if isinstance(value, date) else value

        return {name: plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Read what `as_document` returned; fields of other versions are left out."""
        read: dict[str, Callable[[Any], Any]] = {
            "scope": lambda value: Scope(*value),
            "reason": Reason,
            **dict.fromkeys(("at", "held_until"), datetime.fromisoformat),
            **dict.fromkeys(("first_day", "last_day", "window_from"), date.fromisoformat),
            **dict.fromkeys(
                ("ttl", "wanted", "horizon"), lambda seconds: timedelta(seconds=seconds)
            ),
        }
        known = {item.name for item in fields(cls)}
        values = {
            name: value if value is None or name not in read else read[name](value)
            for name, value in document.items()
            if name in known
        }
        return cls(**values)


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
        targets=_plain(targets),
    )
    if not window:
        return base
    whole = sum(window[1:], window[0])
    current = (last.ttl if last else None) or followed or targets.default
    edge = edge_at_most(targets.horizon)
    alarm = _audit_alarm(whole, current, edge)
    later = (whole.audited if alarm else whole.heard).later_than(edge)
    observations = later[0]
    base = replace(
        base,
        observations=observations,
        first_day=window[-1].day,
        last_day=window[0].day,
        refused=whole.refused,
        withdrawn=sum(whole.withdrawn.counts) > _WITHDRAWN_ALARM * whole.counted,
        audit_alarm=alarm,
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
    need = next(
        EDGES[j]
        for j, missed in enumerate(later)
        if at_least(missed, later[0], targets.soft) >= _GUARD_DOUBT
    )
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
        targets=_plain(targets),
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


def _audit_alarm(whole: Cohort, current: timedelta, edge: int) -> bool:
    """Return whether the audit arm has more late messages than chance explains."""
    at = min(edge_at_most(current), edge)
    audit, main = whole.audited.later_than(edge), whole.used.later_than(edge)
    return excess(audit[at], audit[0], main[at], main[0]) < _AUDIT_DOUBT


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


def _plain(targets: Targets) -> dict[str, float]:
    return {
        name: value.total_seconds() if isinstance(value, timedelta) else value
        for name, value in asdict(targets).items()
    }
