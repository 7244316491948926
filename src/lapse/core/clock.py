"""The clock of this host."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return this host's time: what a store without a clock of its own goes by."""
    return datetime.now(UTC)
