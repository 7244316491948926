"""The targets of the rule, and its decisions: a TTL, the reason, and the data behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from lapse.core.arguments import check_fields
from lapse.core.errors import InvalidValueError
from lapse.core.minutes import DEFAULT_TTL, spelt
from lapse.ttl.binomial import lower
from lapse.ttl.observed import Scope

USUAL_FLOOR: Final = timedelta(minutes=5)
"""The shortest TTL that the rule chooses by default."""


class Policy(StrEnum):
    """How the TTL of new sessions is chosen.

    FIXED: the rule makes no decisions. SHADOW: it makes decisions, which are shown and not
    applied. ADAPTIVE: it makes decisions, and new sessions get their TTL from them.
    """

    FIXED = "fixed"
    SHADOW = "shadow"
    ADAPTIVE = "adaptive"


class Reason(StrEnum):
    """The reason of a decision, as operators and the metric `lapse_ttl_status` show it."""

    TOO_FEW = "too few data"
    CHOSEN = "chosen"
    INFEASIBLE = "infeasible"
    HELD = "held by the step limit"
    RAISED = "raised by the guard"
    RESET = "window reset by an operator"


@dataclass(frozen=True, slots=True)
class Targets:
    """The target shares of the rule, and the limits of the TTL.

    Attributes:
        soft: the largest share of the first messages within the horizon that may find their
            session expired and resurrect it.
        hard: the largest share of first messages that may come when their session is no longer
            restorable. The TTL has no effect on them; only a longer horizon has.
        doubt: the largest probability that a decision misses the soft target.
        floor: the shortest TTL.
        cap: the longest TTL, which the control group has; at most the horizon.
        horizon: for how long after its creation a session is restorable.
        design_effect: how many first messages count as one independent observation; above 1
            for apps in which a few users send many of them.
        default: the TTL until there are enough first messages.

    Raises:
        InvalidValueError: floor, cap and horizon are not in ascending order.
    """

    soft: float = 0.05
    hard: float = 0.005
    doubt: float = 0.05
    floor: timedelta = USUAL_FLOOR
    cap: timedelta = timedelta(hours=24)
    horizon: timedelta = timedelta(hours=24)
    design_effect: float = 1.0
    default: timedelta = DEFAULT_TTL

    def as_document(self) -> dict[str, float]:
        """Return the targets for JSON; durations are numbers of seconds."""
        return {
            name: value.total_seconds() if isinstance(value, timedelta) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def around(cls, default: timedelta, horizon: timedelta) -> Self:
        """Return targets for a fixed TTL, with the usual floor unless the horizon is shorter."""
        return cls(floor=min(USUAL_FLOOR, horizon), cap=horizon, horizon=horizon, default=default)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.floor <= self.cap <= self.horizon:
            reason = (
                f"the floor ({spelt(self.floor)}) must be at most the cap ({spelt(self.cap)}), and "
                f"the cap at most the horizon ({spelt(self.horizon)})"
            )
            raise InvalidValueError("targets", reason)


@dataclass(frozen=True, slots=True)
class Decision:
    """A TTL for a scope, the reason, and the data that it was made from.

    The window is the days of creation that the decision counted.

    Attributes:
        scope: the app or segment that the decision is for.
        at: when it was made, by the store's clock.
        reason: why the TTL is what it is.
        ttl: the TTL; None if the scope has none of its own: a segment then uses its app's TTL,
            and an app the default.
        wanted: the TTL that the data require, before its rise or fall is limited.
        observations: the number of first messages in the window.
        missed: the number of them that came after the TTL.
        bound: the upper confidence bound of the share that comes after the TTL.
        first_day: the first day of the window.
        last_day: the last day of the window.
        window_from: days of creation before this one no longer count.
        held_until: the TTL does not fall before this time.
        horizon: the horizon when the decision was made.
        refused: the number of messages to sessions of the window that came after the purge.
        withdrawn: whether so many sessions were deleted before any message that the counts may
            be wrong.
        control_alarm: whether the control group gets late messages that the others do not get.
        targets: the targets when the decision was made, as `Targets.as_document` returns them.
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
    control_alarm: bool = False
    targets: dict[str, float] = field(default_factory=dict)

    @property
    def soft_miss_rate(self) -> float | None:
        """Return the share of the window's first messages that came after the TTL."""
        return self.missed / self.observations if self.observations else None

    @property
    def hard_miss_rate(self) -> float | None:
        """Return the share of first messages that came when their session was purged."""
        heard = self.observations + self.refused
        return self.refused / heard if heard else None

    @property
    def horizon_too_short(self) -> bool:
        """Return whether the hard target is missed for certain, but for the targets' doubt."""
        heard = self.observations + self.refused
        target = self.targets.get("hard", 1.0)
        doubt = self.targets.get("doubt", 0.0)
        return self.refused > 0 and lower(self.refused, heard, doubt) > target

    def as_document(self) -> dict[str, Any]:
        """Return the decision for JSON; durations are seconds, times and days are ISO 8601."""

        def plain(value: Any) -> Any:
            if isinstance(value, timedelta):
                return value.total_seconds()
            return value.isoformat() if isinstance(value, date) else value

        return {name: plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Return the decision of a document of `as_document`; unknown fields are ignored."""
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
