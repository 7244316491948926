"""How retention stands in a store: what is archived, pinned and on hold, and what is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lapse.core.lifecycle import Lifecycle
from lapse.store.operation import Asking, Part, only, operation, rows
from lapse.store.records import shown_of

MOST_COUNTED: Final = 10_000
"""Pins, holds and what is due are counted up to this number."""


@dataclass(frozen=True, slots=True)
class RetentionLevels:
    """How many sessions retention concerns, at one moment of the store's clock.

    Attributes:
        now: that moment.
        archived: the number of archived sessions.
        pinned: the number of pinned ones, counted up to MOST_COUNTED.
        holds: the number of holds, each of a session or of a user, counted up to MOST_COUNTED.
        due: how many sessions wait for a sweep: used ones for a look, archived ones for their
            purge; counted up to MOST_COUNTED.
        due_since: since when the first of them waits; None: none does.
        is_braked: whether a brake keeps sweeps from them.
    """

    now: datetime
    archived: int
    pinned: int
    holds: int
    due: int
    due_since: datetime | None
    is_braked: bool

    @property
    def overdue(self) -> timedelta:
        """Return how long the first session has waited for a sweep; zero if none waits."""
        return timedelta(0) if self.due_since is None else self.now - self.due_since


class RetentionLevelStore(Part):
    """Counts what retention concerns, and lists what is pinned."""

    @operation(writes=False)
    def retention_levels(self) -> Asking[RetentionLevels]:
        """Return the levels; the cost depends on pins, holds and dues, never on what is stored."""
        row = yield from only("retention_levels", most=MOST_COUNTED)
        return RetentionLevels(
            now=row["now"],
            archived=row["archived"],
            pinned=row["pinned"],
            holds=row["holds"],
            due=row["due"],
            due_since=row["check_at"],
            is_braked=bool(row["is_braked"]),
        )

    @operation(writes=False)
    def pinned(self, limit: int) -> Asking[Sequence[Lifecycle]]:
        """Return at most `limit` pinned sessions, in the order of their keys."""
        found = yield from rows("pinned", limit=limit)
        return [shown_of(row, self.rules) for row in found]
