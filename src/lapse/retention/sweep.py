"""What a sweep by a retention policy asks the store: which sessions to look at, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lapse.core.keys import SessionKey
from lapse.store.operation import Asking, Part, key_of, only, operation, rows


@dataclass(frozen=True, slots=True)
class Purging:
    """The size of a purge: how many archived sessions are due, of how many; counted to a bound.

    `is_braked` tells that a brake is set, which holds archive and purge.
    """

    now: datetime
    due: int
    archived: int
    is_braked: bool


class RetentionSweepStore(Part):
    """Finds the sessions that a retention policy may take."""

    @operation(writes=False)
    def due_for_look(self, limit: int) -> Asking[Sequence[SessionKey]]:
        """Return at most `limit` used sessions at which to look now, the longest due first."""
        return [key_of(row) for row in (yield from rows("due_for_look", limit=limit))]

    @operation(writes=False)
    def purging(self, *, most: int) -> Asking[Purging]:
        """Return how many archived sessions are due to be purged, counted up to `most`.

        `archived` is 0 if none is due.
        """
        row = yield from only("purging", most=most)
        return Purging(row["now"], row["due"], row["archived"], bool(row["is_braked"]))
