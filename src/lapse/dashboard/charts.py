"""Computes the coordinates of the charts, which templates draw as SVG without a script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Final

from lapse.core.ages import EDGES
from lapse.core.lifecycle import ChangeKind
from lapse.dashboard.words import percent, span
from lapse.overview.store import Counted
from lapse.ttl.curve import Curve

HOURS: Final = 24
_HOUR: Final = timedelta(hours=1)
_GAP: Final = 0.22
"""The share of an hour's width that stays empty."""

_UP: Final = (ChangeKind.CREATED, ChangeKind.USED)
_DOWN: Final = (ChangeKind.EXPIRED, ChangeKind.RESURRECTED)
SERIES: Final = (*_UP, *_DOWN)
_HEIGHT: Final = 100.0
_MARKS: Final = tuple(
    (timedelta(seconds=seconds), label)
    for seconds, label in (
        (15, "15 s"),
        (60, "1 min"),
        (300, "5 min"),
        (1800, "30 min"),
        (7200, "2 h"),
        (86400, "24 h"),
        (7 * 86400, "7 d"),
        (30 * 86400, "30 d"),
    )
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle in a square of 100 by 100; y grows downwards."""

    kind: ChangeKind
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Slot:
    """The changes within one hour."""

    begins: datetime
    counts: Sequence[int]
    x: float
    width: float

    @property
    def in_words(self) -> str:
        """Return the hour's changes as text, for its tooltip."""
        parts = ", ".join(
            f"{count:,} {kind}" for kind, count in zip(SERIES, self.counts, strict=True) if count
        )
        return f"{self.begins:%H:%M} to {self.begins + _HOUR:%H:%M} UTC: {parts or 'nothing'}"


@dataclass(frozen=True, slots=True)
class DayChart:
    """Bars by the hour: created and used upwards, expired and resurrected downwards."""

    slots: Sequence[Slot]
    bars: Sequence[Bar]
    axis: float
    totals: Sequence[int]
    highest: int
    lowest: int

    @property
    def is_empty(self) -> bool:
        """Return whether nothing changed."""
        return not any(self.totals)

    @property
    def marks(self) -> Sequence[tuple[float, str]]:
        """Return the positions and labels on the x axis."""
        return [(slot.x, f"{slot.begins:%H:%M}") for slot in self.slots[::6]]

    @property
    def in_words(self) -> str:
        """Return the day's changes as text, for screen readers."""
        parts = ", ".join(
            f"{total:,} {kind}" for kind, total in zip(SERIES, self.totals, strict=True)
        )
        return f"Sessions by the hour, last {HOURS} hours: {parts}"


def day_chart(counts: Iterable[Counted], now: datetime) -> DayChart:
    """Return the chart of the present hour and the 23 before it."""
    latest = now.replace(minute=0, second=0, microsecond=0)
    hours = [latest - _HOUR * back for back in reversed(range(HOURS))]
    table = {hour: dict.fromkeys(SERIES, 0) for hour in hours}

    @cache  # many counts have the same time
    def hour_of(at: datetime) -> datetime:
        return at.astimezone(now.tzinfo).replace(minute=0, second=0, microsecond=0)

    for count in counts:
        hour = hour_of(count.at)
        if hour in table and count.kind in table[hour]:
            table[hour][count.kind] += count.sessions
    highest = max(max(table[hour][kind] for kind in _UP) for hour in hours)
    lowest = max(max(table[hour][kind] for kind in _DOWN) for hour in hours)
    scale = _HEIGHT / (highest + lowest) if highest + lowest else 0.0
    axis = highest * scale if scale else _HEIGHT
    width = 100 / HOURS
    slots, bars = [], []
    for number, hour in enumerate(hours):
        x = number * width
        slots.append(Slot(hour, tuple(table[hour].values()), round(x, 3), round(width, 3)))
        for kind in SERIES:
            height = table[hour][kind] * scale
            # The second series of each direction is narrower and drawn over the first.
            inset = width * (_GAP / 2 if kind in {_UP[0], _DOWN[0]} else 0.31)
            if height:
                bars.append(
                    Bar(
                        kind,
                        round(x + inset, 3),
                        round(axis - height if kind in _UP else axis, 3),
                        round(width - 2 * inset, 3),
                        round(height, 3),
                    )
                )
    totals = tuple(sum(table[hour][kind] for hour in hours) for kind in SERIES)
    return DayChart(slots, bars, round(axis, 3), totals, highest, lowest)


@dataclass(frozen=True, slots=True)
class CurveChart:
    """The share of sessions that had a message by each age, and the TTL; the age is logarithmic.

    `line` and `area` are points of SVG in a square of 100 by 100; `ttl_x`, `ttl_y` and the
    positions of `marks` are per cent. `top` is the share that had a message at all, and `within`
    the part of it that came within the TTL.
    """

    app_name: str
    ttl: str
    line: str
    area: str
    ttl_x: float
    ttl_y: float
    top: float
    marks: Sequence[tuple[float, str]]
    within: float | None

    @property
    def in_words(self) -> str:
        """Return the curve's result as text, for its caption."""
        total = f"{percent(self.top)} of sessions of {self.app_name} get a message at all"
        if self.within is None:
            return total
        return f"{total}; {percent(self.within)} of those within the TTL of {self.ttl}"


def curve_chart(app_name: str, curve: Curve, ttl: timedelta) -> CurveChart:
    """Return the chart of an app's curve, up to the curve's last edge."""
    last = len(curve.silent) - 1
    heard = [1 - share for share in curve.silent]
    longest = EDGES[last]
    top = heard[last]

    def x(age: timedelta) -> float:
        reach = math.log(longest / EDGES[1])
        return round(100 * max(0.0, min(1.0, math.log(age / EDGES[1]) / reach)), 3)

    def y(share: float) -> float:
        return round(100 - (100 * share / top if top else 0.0), 3)

    points = [(x(EDGES[edge]), y(heard[edge])) for edge in range(1, last + 1)]
    line = " ".join(f"{right},{down}" for right, down in points)
    within = heard[max(edge for edge in range(last + 1) if EDGES[edge] <= max(ttl, EDGES[0]))]
    return CurveChart(
        app_name=app_name,
        ttl=span(ttl),
        line=line,
        area=f"0,100 {line} 100,100",
        ttl_x=x(max(ttl, EDGES[1])),
        ttl_y=y(within),
        top=top,
        marks=[(x(age), label) for age, label in _MARKS if age <= longest],
        within=within / top if top else None,
    )
