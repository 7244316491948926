"""The outbox of what the memory service is to forget of purged sessions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lapse.core.keys import SessionKey
from lapse.store.operation import Asking, Part, Row, key_of, operation, rows

EVENTS_OF_ONE: Final = 200
"""An entry of the outbox has at most so many events: what is done of a long session stays done."""


@dataclass(frozen=True, slots=True)
class OwedMemory:
    """Events of a purged session that the memory service is to forget.

    Attributes:
        number: the entry's own.
        key: the session.
        event_ids: the events.
        attempts: how often the entry was taken, including this time.
    """

    number: int
    key: SessionKey
    event_ids: Sequence[str]
    attempts: int


def owed_of(row: Row) -> OwedMemory:
    """Return the entry that a row of the outbox holds."""
    return OwedMemory(row["id"], key_of(row), json.loads(row["event_ids"]), row["attempts"])


def memory_owed(key: SessionKey, event_ids: Sequence[str]) -> Asking[None]:
    """Write into the outbox what is to be forgotten; a part of the operation that purges."""
    starts = range(0, len(event_ids), EVENTS_OF_ONE)
    parts = [json.dumps(event_ids[start : start + EVENTS_OF_ONE]) for start in starts]
    if parts:
        yield from rows("owe_memory", key, parts=parts)


class MemoryOutbox(Part):
    """The outbox of a store; the transaction that purges a session writes its events into it."""

    @operation()
    def take_memory(self, limit: int, *, lease: timedelta) -> Asking[Sequence[OwedMemory]]:
        """Take at most `limit` entries that are due, those that were due first.

        Until it is settled, each is due again after `lease`, for any process. A repeat takes
        others: what an attempt took whose answer was lost is due again after the lease.
        """
        found = yield from rows("take_memory", limit=limit, lease=lease)
        return [owed_of(row) for row in found]

    @operation()
    def postpone_memory(
        self, owed: OwedMemory, left: Sequence[str], pause: timedelta
    ) -> Asking[None]:
        """Let an entry, of which these events are left, be due again after a pause.

        If it was taken again meanwhile, it stays as it is. A repeat does it again.
        """
        yield from rows(
            "postpone_memory",
            owed.key,
            owed=owed.number,
            attempts=owed.attempts,
            event_ids=json.dumps(list(left)),
            memory_pause=pause,
        )

    @operation()
    def settle_memory(self, owed: OwedMemory) -> Asking[None]:
        """Remove an entry whose events are forgotten. A repeat finds it removed."""
        yield from rows("settle_memory", owed.key, owed=owed.number)
