"""The feed of changes, from which logs, metrics and notices learn what happened to sessions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from lapse.core.lifecycle import Change

Consumer = Callable[[Change], None]

_log = logging.getLogger(__name__)


class Feed:
    """Hands every change to every consumer, in the order the changes were published.

    Consumers run on the publisher's thread and must not block. The failure of one is logged and
    disturbs neither the publisher nor the others.
    """

    def __init__(self) -> None:
        self._consumers: tuple[Consumer, ...] = ()

    def subscribe(self, consumer: Consumer) -> Callable[[], None]:
        """Add a consumer and return the function that removes it again."""
        self._consumers = (*self._consumers, consumer)

        def unsubscribe() -> None:
            self._consumers = tuple(kept for kept in self._consumers if kept is not consumer)

        return unsubscribe

    def publish(self, changes: Iterable[Change]) -> None:
        """Hand committed changes to every consumer, one change after the other."""
        for change in changes:
            for consumer in self._consumers:
                try:
                    consumer(change)
                except Exception:  # noqa: BLE001 - a consumer's fault is not the session's
                    _log.exception("a consumer of changes failed on %s", change.kind)
