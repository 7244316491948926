"""The clock of this host, and how moments are written."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the host's time, which is the clock of a store that has none of its own."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """Return a moment as JSON has it: ISO 8601 in UTC, with `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def iso_or_none(moment: datetime | None) -> str | None:
    """Return a moment as `iso` does; None stays None, which is null in JSON."""
    return None if moment is None else iso(moment)
