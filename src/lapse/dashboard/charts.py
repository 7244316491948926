"""Computes the coordinates of the charts, which templates draw as SVG without a script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Final

from lapse.core.ages import EDGES
from lapse.core.lifecycle import ChangeKind
from lapse.dashboard.words import percent, short, span
from lapse.overview.store import Counted
from lapse.ttl.curve import Curve

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_UP: Final = (ChangeKind.CREATED, ChangeKind.USED)
_DOWN: Final = (ChangeKind.EXPIRED, ChangeKind.RESURRECTED)
SERIES: Final = (*_UP, *_DOWN)
_HEIGHT: Final = 100.0
_LOWEST_BAR: Final = 1.0
"""A number that is not zero has a bar of at least this height, however large the others are."""

_LOWEST_TOP: Final = 4
_INSETS: Final = {_UP[0]: 0.11, _UP[1]: 0.31, _DOWN[0]: 0.11, _DOWN[1]: 0.31}
"""The share of a slot's width that stays empty on each side: the second series of each direction
is narrower, and drawn over the first."""

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


class Range(StrEnum):
    """How far back the chart of changes reaches."""

    HOUR = "1h"
    SIX_HOURS = "6h"
    DAY = "24h"
    WEEK = "7d"
    FIVE_WEEKS = "5w"

    @property
    def heading(self) -> str:
        """Return the range in words: `Last 24 hours`."""
        return _SHAPES[self].heading

    @property
    def length(self) -> timedelta:
        """Return how long the range is."""
        return _SHAPES[self].slot * _SHAPES[self].slots


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a range is cut: its slots, and after how many slots the x axis has a label."""

    heading: str
    slot: timedelta
    slots: int
    marked: int


_SHAPES: Final = {
    Range.HOUR: _Shape("Last hour", timedelta(minutes=5), 12, 3),
    Range.SIX_HOURS: _Shape("Last 6 hours", _HOUR, 6, 1),
    Range.DAY: _Shape("Last 24 hours", _HOUR, 24, 4),
    Range.WEEK: _Shape("Last 7 days", 6 * _HOUR, 28, 4),
    Range.FIVE_WEEKS: _Shape("Last 5 weeks", _DAY, 35, 7),
}


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
    """The changes within one slot of time."""

    begins: datetime
    ends: datetime
    counts: Sequence[int]
    x: float
    width: float

    @property
    def time(self) -> str:
        """Return the slot's time: `29 Nov 13:00 to 14:00 UTC`; of a whole day `29 Nov`."""
        day = f"{self.begins.day} {self.begins:%b}"
        if self.ends - self.begins == _DAY:
            return day
        return f"{day} {self.begins:%H:%M} to {self.ends:%H:%M} UTC"

    @property
    def in_words(self) -> str:
        """Return the slot's changes as text, for who points at it or goes to it by a key."""
        parts = ", ".join(
            f"{count:,} {kind}" for kind, count in zip(SERIES, self.counts, strict=True) if count
        )
        return f"{self.time}: {parts or 'nothing'}"


@dataclass(frozen=True, slots=True)
class ChangeChart:
    """Bars by slot: created and used upwards, expired and resurrected downwards.

    `ticks` and `marks` are the positions, in per cent, and labels on the y axis and the x axis.
    """

    range: Range
    slots: Sequence[Slot]
    bars: Sequence[Bar]
    axis: float
    totals: Sequence[int]
    ticks: Sequence[tuple[float, str]]
    marks: Sequence[tuple[float, str]]

    @property
    def is_empty(self) -> bool:
        """Return whether nothing changed."""
        return not any(self.totals)

    @property
    def in_words(self) -> str:
        """Return the changes as text, for screen readers."""
        parts = ", ".join(
            f"{total:,} {kind}" for kind, total in zip(SERIES, self.totals, strict=True)
        )
        return f"Changes of sessions, {self.range.heading.lower()}: {parts}"


def change_chart(counts: Iterable[Counted], now: datetime, reach: Range = Range.DAY) -> ChangeChart:
    """Return the chart of the present slot and those before it, in UTC."""
    shape = _SHAPES[reach]
    latest = _floor(now, shape.slot)
    begins = [latest - shape.slot * back for back in reversed(range(shape.slots))]
    table = {begin: dict.fromkeys(SERIES, 0) for begin in begins}

    @cache  # many counts have the same time
    def slot_of(at: datetime) -> datetime:
        return _floor(at, shape.slot)

    for count in counts:
        found = table.get(slot_of(count.at))
        if found is not None and count.kind in found:
            found[count.kind] += count.sessions
    up = _top(max(max(table[begin][kind] for kind in _UP) for begin in begins))
    down = _top(max(max(table[begin][kind] for kind in _DOWN) for begin in begins))
    scale = _HEIGHT / (up + down) if up + down else 0.0
    axis, width = up * scale if scale else _HEIGHT, 100 / shape.slots
    slots, bars = [], []
    for number, begin in enumerate(begins):
        x, numbers = number * width, table[begin]
        slots.append(
            Slot(begin, begin + shape.slot, tuple(numbers.values()), round(x, 3), round(width, 3))
        )
        bars += [
            _bar(kind, numbers[kind] * scale, axis, x, width) for kind in SERIES if numbers[kind]
        ]
    return ChangeChart(
        reach,
        slots,
        bars,
        round(axis, 3),
        tuple(sum(table[begin][kind] for begin in begins) for kind in SERIES),
        _ticks(up, down, scale, axis),
        [(slot.x, _mark(slot.begins, shape)) for slot in slots[:: shape.marked]],
    )


def _bar(kind: ChangeKind, height: float, axis: float, x: float, width: float) -> Bar:
    height, inset = max(height, _LOWEST_BAR), width * _INSETS[kind]
    y = axis - height if kind in _UP else axis
    return Bar(
        kind, round(x + inset, 3), round(y, 3), round(width - 2 * inset, 3), round(height, 3)
    )


def _floor(at: datetime, slot: timedelta) -> datetime:
    return at - (at - _EPOCH) % slot


def _top(highest: int) -> int:
    """Return the end of an axis: 4, 6, 8, 10, 20, 30, 40, …; 0 for an axis without a bar."""
    if not highest:
        return 0
    power = 1
    while True:
        for step in (1, 2, 3, 4, 6, 8):
            if step * power >= max(highest, _LOWEST_TOP):
                return step * power
        power *= 10


def _ticks(up: int, down: int, scale: float, axis: float) -> list[tuple[float, str]]:
    values = {up, up // 2, 0, -down} if up else {0, -down, -(down // 2)}
    return [
        (round(axis - value * scale, 3), short(abs(value)))
        for value in sorted(values, reverse=True)
    ]


def _mark(begins: datetime, shape: _Shape) -> str:
    day = f"{begins.day} {begins:%b}"
    if shape.slot >= 6 * _HOUR:
        return day
    return f"{begins:%H:%M}"


@dataclass(frozen=True, slots=True)
class CurveChart:
    """The share of sessions that had a message by each age, and the TTL; the age is logarithmic.

    `line` and `area` are points of SVG in a square of 100 by 100; `ttl_x`, `ttl_y` and the
    positions of `marks` are per cent. `top` is the share that had a message at all, and `within`
    the part of it that came within the TTL. `so_far` is the number of first messages of a curve
    that knows these only, and not yet how many sessions get none.
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
    so_far: int | None = None

    @property
    def ticks(self) -> Sequence[tuple[float, str]]:
        """Return the positions and labels on the y axis."""
        return [(0, percent(self.top)), (50, percent(self.top / 2)), (100, "0")]

    @property
    def in_words(self) -> str:
        """Return the curve's result as text, for its caption."""
        if self.so_far is not None:
            within = percent(self.within or 0)
            return (
                f"Of {self.so_far:,} first messages of {self.app_name} so far, {within} came "
                f"within the TTL of {self.ttl}"
            )
        total = f"{percent(self.top)} of sessions of {self.app_name} get a message at all"
        if self.within is None:
            return total
        return f"{total}; {percent(self.within)} of those within the TTL of {self.ttl}"


def early_chart(app_name: str, ages: Sequence[timedelta], ttl: timedelta) -> CurveChart:
    """Return the chart of the ages of an app's first messages so far, of which there is one."""
    last = next(edge for edge, age in enumerate(EDGES) if age >= max(*ages, ttl, EDGES[24]))
    silent = [1 - sum(age <= EDGES[edge] for age in ages) / len(ages) for edge in range(last + 1)]
    return curve_chart(app_name, Curve(tuple(silent)), ttl, so_far=len(ages))


def curve_chart(
    app_name: str, curve: Curve, ttl: timedelta, *, so_far: int | None = None
) -> CurveChart:
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
        so_far=so_far,
    )
