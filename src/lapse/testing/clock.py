"""A clock that a test moves, and a store that goes by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from lapse.core.errors import InvalidValueError
from lapse.store.database import Database


class Clock:
    """The time of a test. It stands still until the test moves it.

    It begins at the present time, because ADK marks events with that.
    """

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def advance(self, by: timedelta | None = None, **parts: float) -> None:
        """Move ahead by a timedelta, or by what one is made of, such as `minutes=31`.

        Raises:
            InvalidValueError: it would move back, which the clock of a store never does.
        """
        step = timedelta(**parts) if by is None else by
        if step < timedelta(0):
            reason = f"can only move ahead, not by {step}; give a positive step"
            raise InvalidValueError("clock", reason)
        self.now += step


class ClockedDatabase:
    """A store whose clock is a test's; it has every member of the store."""

    def __init__(self, store: Database, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store.at(self._clock.now), name)
