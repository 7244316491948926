"""The base of each slice's settings, and the types that read their values from text."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lapse.core.errors import InvalidValueError
from lapse.core.lifecycle import LONGEST_HORIZON
from lapse.core.messages import UsedByRule
from lapse.core.minutes import LONGEST_TTL, ttl_from_minutes
from lapse.core.service_variables import is_service_address

_LONGEST_TIMEOUT: Final = timedelta(hours=1)
_TINY: Final = 1e-6


class SliceSettings(BaseSettings):
    """The settings of one slice; `lapse.settings.Settings` is composed of all of them.

    Each field names its environment variable. Its default is that of the options class which a
    property of the slice's settings returns.
    """

    # Only what is read is built: the slices are bases of `Settings`, and none of them is read.
    model_config = SettingsConfigDict(
        defer_build=True,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    def problems(self) -> list[str]:
        """Return what is wrong with settings that are valid alone but not together.

        A slice adds its own problems to those of `super().problems()`.
        """
        return []


def _number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _minutes(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    return ttl_from_minutes(_number(value), field="minutes")


def _warning(value: object) -> object:
    """Read minutes; 0 means no warning."""
    minutes = _number(value)
    longest = LONGEST_TTL / timedelta(minutes=1)
    if isinstance(minutes, timedelta):
        return minutes
    if isinstance(minutes, bool) or not isinstance(minutes, int | float):
        raise InvalidValueError("minutes", f"must be a number of minutes, not {minutes!r:.40}")
    if not 0 <= minutes <= longest:  # refuses NaN, too
        raise InvalidValueError("minutes", f"must be 0 to {longest:.0f} minutes, not {minutes!r}")
    return timedelta(minutes=minutes)


def _hours(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    hours = _number(value)
    longest = LONGEST_HORIZON / timedelta(hours=1)
    if isinstance(hours, bool) or not isinstance(hours, int | float):
        raise InvalidValueError("hours", f"must be a number of hours, not {hours!r:.40}")
    if not math.isfinite(hours) or not 0 <= hours <= longest:
        raise InvalidValueError("hours", f"must be 0 to {longest:.0f} hours, not {hours!r:.40}")
    return timedelta(hours=hours)


def _seconds(value: object, *, zero: bool = False) -> object:
    if isinstance(value, timedelta):
        return value
    seconds = _number(value)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidValueError("seconds", f"must be a number of seconds, not {seconds!r:.40}")
    longest = _LONGEST_TIMEOUT.total_seconds()
    if not math.isfinite(seconds) or not (0 if zero else _TINY) <= seconds <= longest:
        least = "0 to" if zero else "above 0 and at most"
        reason = f"must be {least} {longest:.0f} seconds, not {seconds!r:.40}"
        raise InvalidValueError("seconds", reason)
    return timedelta(seconds=seconds)


def share_from(value: object, *, field: str, whole: bool = False) -> float:
    """Read a share above 0 and below 1: `0.05` or `5%`. With `whole`, 1 is allowed, too.

    Raises:
        InvalidValueError: the value is not a share. The error names `field`.
    """
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.endswith("%"):
        number = _number(text.removesuffix("%"))
        share = number / 100 if isinstance(number, float) else number
    else:
        share = _number(text)
    most = 1 if whole else math.nextafter(1, 0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= most:
        upto = "at most" if whole else "below"
        reason = f"must be above 0 and {upto} 1, such as 0.05 or 5%, not {value!r:.40}"
        raise InvalidValueError(field, reason)
    return float(share)


def doubt_of(confidence: float) -> float:
    """Return `1 - confidence`, without the rounding error of binary fractions."""
    return round(1 - confidence, 12)


def _share(value: object) -> object:
    return share_from(value, field="share")


def _share_or_whole(value: object) -> object:
    return share_from(value, field="share", whole=True)


def _seconds_or_zero(value: object) -> object:
    return _seconds(value, zero=True)


Minutes = Annotated[timedelta, BeforeValidator(_minutes)]
"""A TTL in minutes, decimals allowed."""

WarningMinutes = Annotated[timedelta, BeforeValidator(_warning)]
"""Minutes, 0 included."""

Hours = Annotated[timedelta, BeforeValidator(_hours)]
Seconds = Annotated[timedelta, BeforeValidator(_seconds)]
SecondsOrNone = Annotated[timedelta, BeforeValidator(_seconds_or_zero)]
"""Seconds, 0 included."""


def names(value: object) -> object:
    """Read texts that are separated by commas."""
    if not isinstance(value, str):
        return value
    return tuple(part for part in (part.strip() for part in value.split(",")) if part)


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(names)]
"""Texts, separated by commas."""


def _port(value: object) -> object:
    """Read a port; Kubernetes sets `LAPSE_ADMIN_PORT` itself for a service named `lapse-admin`."""
    return None if isinstance(value, str) and is_service_address(value) else value


Port = Annotated[int | None, Field(ge=0, le=65535), BeforeValidator(_port)]
"""A port; None: not set."""

Limit = Annotated[int | None, Field(ge=0, le=1_000_000)]
"""A maximum; 0 means no limit, None means that it is not set."""

UsedBySetting = Annotated[UsedByRule, NoDecode, BeforeValidator(UsedByRule.parse)]
"""Whose message makes a session used, by app: `anyone,shop=user`."""

Share = Annotated[float, BeforeValidator(_share)]
ShareOrWhole = Annotated[float, BeforeValidator(_share_or_whole)]
