"""A TTL in minutes: its bounds, and how it is read."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lapse.core.errors import InvalidValueError

DEFAULT_TTL: Final = timedelta(minutes=30)
SHORTEST_TTL: Final = timedelta(milliseconds=1)
LONGEST_TTL: Final = timedelta(days=30)


def ttl_from_minutes(minutes: object, *, field: str, longest: timedelta = LONGEST_TTL) -> timedelta:
    """Read a TTL given in minutes, decimals allowed.

    Raises:
        InvalidValueError: `minutes` is not a number, not finite, or outside
            SHORTEST_TTL..`longest`. The error names `field`.
    """
    if isinstance(minutes, bool) or not isinstance(minutes, int | float):
        raise InvalidValueError(field, f"must be a number of minutes, not {minutes!r:.40}")
    most = minutes_of(min(longest, LONGEST_TTL))
    if not 0 < minutes <= most:  # refuses NaN, too, and an int that no float can hold
        days = " (30 days)" if longest >= LONGEST_TTL else ""
        reason = f"must be above 0 and at most {most:g} minutes{days}, not {minutes!r:.40}"
        raise InvalidValueError(field, reason)
    ttl = timedelta(minutes=minutes)
    if ttl < SHORTEST_TTL:
        raise InvalidValueError(field, f"must be at least 1 millisecond, not {minutes!r} minutes")
    return ttl


def spelt(duration: timedelta) -> str:
    """Return a duration as people say it, in its largest unit: `1 day`, `1.5 h`, `30 min`."""
    seconds = duration.total_seconds()
    units = (("day", 86_400), ("h", 3600), ("min", 60))
    unit, length = next((one for one in units if seconds >= one[1]), ("s", 1))
    number = f"{seconds / length:.4g}"
    return f"{number} {unit}{'s' if unit == 'day' and number != '1' else ''}"


def minutes_of(ttl: timedelta) -> float:
    """Return a TTL in minutes, as an int if it is whole."""
    minutes = ttl / timedelta(minutes=1)
    return int(minutes) if minutes.is_integer() else minutes
