"""The outbox: ended sessions whose artifacts are to be deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lapse.core.keys import SessionKey
from lapse.store.operation import Asking, Part, first, key_of, operation, rows


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An ended session whose artifacts are to be deleted.

    Attributes:
        key: the session.
        ended_at: when it ended, by the store's clock.
        attempts: how often it was taken from the outbox, including this time.
    """

    key: SessionKey
    ended_at: datetime
    attempts: int


class Outbox(Part):
    """The outbox of a store; the transaction that ends a session writes the session into it."""

    @operation()
    def take_outbox(self, limit: int) -> Asking[Sequence[OutboxEntry]]:
        """Take at most `limit` sessions whose artifacts are due to be deleted.

        Until it is settled, each is taken again after a growing pause, by any process. A repeat
        takes others: what an attempt took whose answer was lost is due again after the pause.
        """
        found = yield from rows("take_outbox", limit=limit)
        return [OutboxEntry(key_of(row), row["ended_at"], row["attempts"]) for row in found]

    @operation()
    def take_outbox_of(self, key: SessionKey) -> Asking[OutboxEntry | None]:
        """Take one session from the outbox, whether it is due or not; None if it is not there.

        A repeat takes it once more, so that it is due again somewhat later.
        """
        row = yield from first("take_outbox_of", key)
        return None if row is None else OutboxEntry(key, row["ended_at"], row["attempts"])

    @operation()
    def settle_outbox(self, entry: OutboxEntry) -> Asking[None]:
        """Remove a session whose artifacts are deleted, and forget what its user uploaded to it.

        The session stays in the outbox if another of its key has ended meanwhile. A repeat finds it
        removed.
        """
        yield from rows("settle_outbox", entry.key, ended_at=entry.ended_at)
