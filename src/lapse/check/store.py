"""Whether a store can be worked with now; how it is before anybody opens it says `inspect`."""

from __future__ import annotations

from typing import Final

from lapse.store.operation import Asking, Part, operation, rows

MOST_COUNTED: Final = 100_000
"""How far a check counts sessions."""


class HealthStore(Part):
    """Whether a store answers."""

    @operation()
    def ping(self) -> Asking[None]:
        """Return when the store can be read and written."""
        yield from rows("ping")
