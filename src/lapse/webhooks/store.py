"""The outbox of the webhook: events that are to be sent, and those that were given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lapse.store.operation import Asking, Part, key_of, only, operation, rows
from lapse.webhooks.rules import KEPT, LEASE, LONGEST_PAUSE, REMEMBERED, Event, EventKind

MOST_COUNTED: Final = 10_000
"""Events are counted up to this number."""

_AT_ONCE: Final = 10_000
"""So many events are given up, or forgotten, at a time."""


@dataclass(frozen=True, slots=True)
class WebhookLevels:
    """How the webhook stands.

    Attributes:
        undelivered: how many events wait, counted up to MOST_COUNTED.
        oldest: how long ago the first of them happened; zero if none waits.
        given_up: how many were given up in the last 30 days, counted up to MOST_COUNTED.
    """

    undelivered: int = 0
    oldest: timedelta = timedelta(0)
    given_up: int = 0


class WebhookStore(Part):
    """The outbox. Triggers write into it with each change, once a webhook was announced."""

    @operation(together=True)
    def announce_webhook(self) -> Asking[None]:
        """Record that a server has a webhook; from its first commit on, events are written.

        A repeat records it again.
        """
        yield from rows("announce_webhook")
        yield from rows("make_webhook_triggers")

    @operation()
    def take_webhooks(self, limit: int) -> Asking[Sequence[Event]]:
        """Take at most `limit` events that are due to be sent, in no order.

        Until it is settled, each is taken again after a growing pause, by any process. A repeat
        takes others: what an attempt took whose answer was lost is due again after the pause.
        """
        found = yield from rows("take_webhooks", limit=limit, lease=LEASE, longest=LONGEST_PAUSE)
        return [
            Event(
                number=row["id"],
                event=row["event"],
                kind=EventKind(row["kind"]),
                key=key_of(row),
                at=row["at"],
                created_at=row["created_at"],
                happens=row["happens"],
                amount=row["amount"],
                reason=row["reason"],
                attempts=row["attempts"],
            )
            for row in found
        ]

    @operation()
    def settle_webhooks(self, numbers: Sequence[int]) -> Asking[None]:
        """Remove events that were delivered. A repeat finds them removed."""
        yield from rows("settle_webhooks", ids=list(numbers))

    @operation(together=True)
    def maintain_webhooks(self) -> Asking[int]:
        """Give up events that are older than KEPT, and return how many.

        Once no server has announced a webhook for KEPT, no further events are written. What was
        given up is forgotten after REMEMBERED. A repeat gives up what is left.
        """
        ended = yield from rows("end_webhooks", silence=KEPT)
        if ended:
            yield from rows("drop_webhook_triggers")
        gone = yield from rows("give_up_webhooks", kept=KEPT, limit=_AT_ONCE)
        yield from rows("forget_dead_webhooks", remembered=REMEMBERED, limit=_AT_ONCE)
        return len(gone)

    @operation(writes=False)
    def webhook_levels(self) -> Asking[WebhookLevels]:
        """Return how the webhook stands."""
        row = yield from only("webhook_levels", most=MOST_COUNTED)
        first = row["at"]
        oldest = timedelta(0) if first is None else max(timedelta(0), row["now"] - first)
        return WebhookLevels(row["undelivered"], oldest, row["given_up"])
