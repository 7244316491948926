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


def iso(moment: datetime) -> str:
    """Return a moment in ISO 8601, to the millisecond, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sessions(count: int) -> str:
    """Return a number with its noun: `1 session`, `1,200 sessions`."""
    return "1 session" if count == 1 else f"{count:,} sessions"


def percent(share: float) -> str:
    """Return a share of 1 in per cent, with one decimal: `6.0 %`."""
    return f"{share * 100:.1f} %"
