"""Sessions that ended before their first message, whose artifacts are to be deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lapse.core.keys import SessionKey
from lapse.store.operation import Asking, Part, key_of, operation, rows


@dataclass(frozen=True, slots=True)
class Leftover:
    """A session that ended while nobody had spoken to it, whose artifacts are to be deleted.

    `lives` tells that there is a session of the same key again; `attempts` counts this one.
    """

    key: SessionKey
    ended_at: datetime
    attempts: int
    lives: bool


class Outbox(Part):
    """What the transactions that end sessions leave for whoever deletes artifacts."""

    @operation()
    def take_outbox(self, limit: int) -> Asking[Sequence[Leftover]]:
        """Take ended sessions whose artifacts are due to be deleted.

        Each comes again after a growing pause until it is settled, in whatever process.
        """
        return [
            Leftover(key_of(row), row["ended_at"], row["attempts"], bool(row["lives"]))
            for row in (yield from rows("take_outbox", limit=limit))
        ]

    @operation()
    def settle_outbox(self, leftover: Leftover) -> Asking[None]:
        """Note that the artifacts of an ended session are deleted."""
        yield from rows("settle_outbox", leftover.key, ended_at=leftover.ended_at)
