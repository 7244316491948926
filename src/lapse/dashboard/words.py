"""Formats times and numbers for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_UNITS: Final = (
    (timedelta(days=1), "d"),
    (timedelta(hours=1), "h"),
    (timedelta(minutes=1), "min"),
    (timedelta(seconds=1), "s"),
)


def span(duration: timedelta) -> str:
    """Return a duration in its two largest units: `4 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    rest = abs(duration)
    if rest < timedelta(seconds=1):
        milliseconds = round(rest / timedelta(milliseconds=1))
        return f"{milliseconds} ms" if milliseconds else "0 s"
    rest = timedelta(seconds=round(rest.total_seconds()))
    for number, (unit, name) in enumerate(_UNITS):
        if rest >= unit:
            count, rest = divmod(rest, unit)
            words = [f"{count} {name}"]
            if number + 1 < len(_UNITS):
                smaller, smaller_name = _UNITS[number + 1]
                if more := rest // smaller:
                    words.append(f"{more} {smaller_name}")
            return " ".join(words)
    return "0 s"


def when(moment: datetime, now: datetime) -> str:
    """Return how long ago or how far ahead a moment is: `4 s ago`, `now`, `in 2 min`."""
    if abs(moment - now) < timedelta(seconds=1):
        return "now"
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def stamp(moment: datetime) -> str:
    """Return a moment in UTC, to the second: `2026-01-31 12:00:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(moment: datetime, now: datetime) -> str:
    """Return a moment in UTC to the minute, with its day unless that is `now`'s.

    `12:00`, `12:00 tomorrow`, `12:00 yesterday`, `12:00 on 31 Jan`, `12:00 on 31 Jan 2026`.
    """
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    told = f"{moment:%H:%M}"
    match (moment.date() - now.date()).days:
        case 0:
            return told
        case 1:
            return f"{told} tomorrow"
        case -1:
            return f"{told} yesterday"
    day = f"{moment.day} {moment:%b}"
    return f"{told} on {day}" if moment.year == now.year else f"{told} on {day} {moment.year}"


def iso(moment: datetime) -> str:
    """Return a moment in ISO 8601, to the millisecond, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def short(number: int) -> str:
    """Return a number in few characters, for an axis: `40`, `2k`, `1.5M`."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return str(number)


def percent(share: float) -> str:
    """Return a share of 1 in per cent, with one decimal: `6.0 %`."""
    return f"{share * 100:.1f} %"
