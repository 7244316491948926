"""Generated histories, by name: when sessions are created, and how late first messages come."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

from lapse.ttl.simulation.traces import NEVER, Arrival

_DAY: Final = 86_400.0
_HOUR: Final = 3_600.0
_START: Final = datetime(2030, 1, 1, tzinfo=UTC).timestamp()

_SLOWDOWN: Final = 4.0
_HEAVY_USER: Final = "heavy"
_MORNING_HOUR: Final = 8.5
_EVENING_HOUR: Final = 18.0

Delay: TypeAlias = Callable[[random.Random, float, float], float]
"""Returns the delay of a first message in seconds.

It takes the source of chance, the hour of the day, and the share of the history that is over.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a generated history.

    Attributes:
        days: the number of days.
        per_day: the number of sessions created on each day.
        never_used: the share of sessions that never have a message.
        seed: the same seed makes the same history.
    """

    days: int = 90
    per_day: int = 2_000
    never_used: float = 0.65
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Generator:
    """A named kind of history.

    Attributes:
        about: what it models, in a few words.
        delay: the delay of a first message.
        diurnal: whether the load follows the time of day; otherwise it is even.
        heavy: whether one user makes a third of the sessions, and is ten times slower.
    """

    about: str
    delay: Delay
    diurnal: bool = False
    heavy: bool = False


def _mixture(chance: random.Random, _hour: float, _over: float) -> float:
    """Most first messages come within minutes, some within the hour, a few after hours."""
    kind = chance.random()
    if kind < 0.88:  # noqa: PLR2004 - the shares of the mixture
        return 30 * math.exp(chance.gauss(0, 1.1))
    if kind < 0.98:  # noqa: PLR2004
        return 480 * math.exp(chance.gauss(0, 0.9))
    return 3600 * math.exp(chance.gauss(0, 1.0))


def _weibull(chance: random.Random, _hour: float, _over: float) -> float:
    return chance.weibullvariate(120, 0.5)


def _rising(chance: random.Random, _hour: float, _over: float) -> float:
    return chance.weibullvariate(600, 2)


def _morning(chance: random.Random, hour: float, over: float) -> float:
    """A fifth of the sessions created in the evening have their first message the next morning."""
    if hour >= _EVENING_HOUR and chance.random() < 0.2:  # noqa: PLR2004 - a fifth
        return max(0.0, (24 - hour + _MORNING_HOUR + chance.gauss(0, 1)) * _HOUR)
    return _mixture(chance, hour, over)


def _step(chance: random.Random, hour: float, over: float) -> float:
    return _mixture(chance, hour, over) * (_SLOWDOWN if over >= 0.5 else 1)  # noqa: PLR2004


def _ramp(chance: random.Random, hour: float, over: float) -> float:
    return _mixture(chance, hour, over) * math.pow(_SLOWDOWN, over)


GENERATORS: Final[dict[str, Generator]] = {
    "mixture": Generator("log-normal mixture: seconds, minutes, a few hours", _mixture),
    "weibull": Generator("Weibull with a falling rate (shape 0.5)", _weibull),
    "rising": Generator("Weibull with a rising rate (shape 2)", _rising),
    "morning": Generator("evening sessions that are used the next morning", _morning, diurnal=True),
    "daily": Generator("the mixture under a load that follows the day", _mixture, diurnal=True),
    "step": Generator("the mixture, four times slower in the second half", _step),
    "ramp": Generator("the mixture, slower and slower, four times at the end", _ramp),
    "one-user": Generator(
        "the mixture, a third of it by one user who is ten times slower", _mixture, heavy=True
    ),
}


def generate(name: str, plan: Plan) -> Iterator[Arrival]:
    """Yield the sessions of a generator of GENERATORS, in the order of creation."""
    generator = GENERATORS[name]
    chance = random.Random(plan.seed)
    for day in range(plan.days):
        moments = sorted(_moment(chance, diurnal=generator.diurnal) for _ in range(plan.per_day))
        for moment in moments:
            user = None
            pace = 1.0
            if generator.heavy:
                heavy = chance.random() < 1 / 3
                user = _HEAVY_USER if heavy else f"u{chance.randrange(10**9)}"
                pace = 10.0 if heavy else 1.0
            delay = NEVER
            if chance.random() >= plan.never_used:
                over = (day + moment / _DAY) / plan.days
                delay = pace * generator.delay(chance, moment / _HOUR, over)
            yield Arrival(_START + day * _DAY + moment, delay, user)


def _moment(chance: random.Random, *, diurnal: bool) -> float:
    """Return a random second of the day; a diurnal load peaks in the early afternoon."""
    while True:
        moment = chance.random() * _DAY
        if not diurnal or chance.random() * 1.8 < 1 - 0.8 * math.cos(
            2 * math.pi * (moment / _DAY - 1 / 12)
        ):
            return moment
