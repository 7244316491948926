"""Numbers in sentences."""

from __future__ import annotations


def sessions(count: int) -> str:
    """Return a number with its noun: `1 session`, `1,200 sessions`."""
    return "1 session" if count == 1 else f"{count:,} sessions"
