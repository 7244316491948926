"""What the rule aims at, and what it decides: a TTL, its reason, and what it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from lapse.core.errors import InvalidValueError
from lapse.core.minutes import DEFAULT_TTL
from lapse.ttl.binomial import lower
from lapse.ttl.observed import Scope

USUAL_FLOOR: Final = timedelta(minutes=5)


class Policy(StrEnum):
    """What becomes of decisions: none are made, they are only shown, or they hold."""

    FIXED = "fixed"
    SHADOW = "shadow"
    ADAPTIVE = "adaptive"


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
        cap: the longest, and that of the control group; at most the horizon.
        horizon: for how long after its creation a session can be had back.
        design_effect: how many first messages are worth one, where they depend on each other.
        default: the TTL until there are enough data.
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
        """Return them as JSON has them; durations are in seconds."""
        return {
            name: value.total_seconds() if isinstance(value, timedelta) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def around(cls, default: timedelta, horizon: timedelta) -> Self:
        """Return targets for a fixed TTL: with the usual limits, as far as the horizon lets."""
        return cls(floor=min(USUAL_FLOOR, horizon), cap=horizon, horizon=horizon, default=default)

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
        control_alarm: whether the control group hears late messages that the others do not.
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
    control_alarm: bool = False
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
