"""The clock of this host, and how moments are written."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return this host's time: what a store without a clock of its own goes by."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """Return a moment as JSON has it: ISO 8601 in UTC, with `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
