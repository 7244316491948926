"""Whether an open store answers; `Database.inspect` looks at one that is not open."""

from __future__ import annotations

from typing import Final

from lapse.store.operation import Asking, Part, operation, rows

MOST_COUNTED: Final = 100_000
"""A check counts sessions up to this number."""


class HealthStore(Part):
    """Whether a store answers."""

    @operation()
    def ping(self) -> Asking[None]:
        """Return once the store has taken a transaction that may write."""
        yield from rows("ping")
