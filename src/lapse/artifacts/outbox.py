"""The outbox: sessions that ended before their first message, whose artifacts are to be deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lapse.core.keys import SessionKey
from lapse.store.operation import Asking, Part, key_of, operation, rows


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A session that ended before its first message, and whose artifacts are to be deleted.

    Attributes:
        key: the session.
        ended_at: when it ended, by the store's clock.
        attempts: how often it was taken from the outbox, including this time.
        lives: whether a session of the same key exists again.
    """

    key: SessionKey
    ended_at: datetime
    attempts: int
    lives: bool


class Outbox(Part):
    """The outbox of a store; the transaction that ends a session writes the session into it."""

    @operation()
    def take_outbox(self, limit: int) -> Asking[Sequence[OutboxEntry]]:
        """Take at most `limit` sessions whose artifacts are due to be deleted.

        Until it is settled, each is taken again after a growing pause, by any process.
        """
        found = yield from rows("take_outbox", limit=limit)
        return [
            OutboxEntry(key_of(row), row["ended_at"], row["attempts"], bool(row["lives"]))
            for row in found
        ]

    @operation()
    def settle_outbox(self, entry: OutboxEntry) -> Asking[None]:
        """Remove a session whose artifacts are deleted; a no-op if another of its key has ended."""
        yield from rows("settle_outbox", entry.key, ended_at=entry.ended_at)
