"""The feed of changes, from which logs, metrics and notices learn what happened to sessions."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from lapse.core.lifecycle import Change, ChangeKind, Expiries

T = TypeVar("T")

Consumer = Callable[[Change], None]
ConsumerOfMany = Callable[[Expiries], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    one: Consumer
    many: ConsumerOfMany | None


class Feed:
    """Hands every change to every consumer, in the order the changes were published.

    The expiries of a backlog come as `Expiries` in place of single changes, if every consumer takes
    them. One that does not gets each expiry as a change, and so do all others then.

    Consumers run on the publisher's thread and must not block. The failure of one is logged and
    disturbs neither the publisher nor the others.
    """

    def __init__(self) -> None:
        self._subscriptions: tuple[_Subscription, ...] = ()
        self._published_at = -math.inf

    def subscribe(
        self, consumer: Consumer, *, of_many: ConsumerOfMany | None = None
    ) -> Callable[[], None]:
        """Add a consumer and return the function that removes it again.

        Args:
            consumer: called with each change.
            of_many: called with `Expiries` in place of their single changes; without it, the
                consumer gets all changes one by one, and large backlogs take several times as long.
        """
        own = _Subscription(consumer, of_many)
        self._subscriptions = (*self._subscriptions, own)

        def unsubscribe() -> None:
            self._subscriptions = tuple(one for one in self._subscriptions if one is not own)

        return unsubscribe

    @property
    def takes_many(self) -> bool:
        """Return whether every consumer takes `Expiries`."""
        return all(subscription.many is not None for subscription in self._subscriptions)

    @property
    def quiet_for(self) -> float:
        """Return for how many seconds nobody but sweeps has published; infinity: nobody ever has.

        Each transition of this process publishes, also if nothing has changed. Reads do not.
        """
        return time.monotonic() - self._published_at

    def publish(self, changes: Iterable[Change], *, swept: bool = False) -> None:
        """Hand committed changes to every consumer, one change after the other.

        `swept`: a sweep has made them, which does not count for `quiet_for`.
        """
        if not swept:
            self._published_at = time.monotonic()
        for change in changes:
            for subscription in self._subscriptions:
                _call(subscription.one, change, change.kind)

    def publish_many(self, expiries: Expiries) -> None:
        """Hand committed expiries to every consumer that takes them."""
        for subscription in self._subscriptions:
            if subscription.many is not None:
                _call(subscription.many, expiries, ChangeKind.EXPIRED)


def _call(consumer: Callable[[T], None], news: T, kind: ChangeKind) -> None:
    try:
        consumer(news)
    except Exception:  # noqa: BLE001 - a consumer's fault is not the session's
        _log.exception("a consumer of changes failed on %s", kind)
