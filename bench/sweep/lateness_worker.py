"""One replica that sweeps a database which others sweep, too; notes how late it is."""

from __future__ import annotations

import asyncio
import sys
import time

from bench.support.children import Answer, Request, answer_requests
from lapse.core.feed import Feed
from lapse.core.lifecycle import Change
from lapse.store import store_from_url
from lapse.sweep.sweeper import Sweeper
from lapse.telemetry.logs import LogOptions, configure_logging, log_change
from lapse.telemetry.metrics import Metrics


class Replica:
    """Sweeps while it is asked to, with the consumers that a server has."""

    def __init__(self) -> None:
        self._decided: list[float] = []
        self._told: list[float] = []

    async def handle(self, request: Request) -> Answer:
        """Sweep for so many seconds and return the lateness of every expiry."""
        store, feed = store_from_url(request["url"]), Feed()
        feed.subscribe(Metrics().count_change)
        feed.subscribe(log_change)
        feed.subscribe(self._note)
        async with Sweeper(store, feed):
            await asyncio.sleep(request["seconds"])
        await store.close()
        return {"decided": self._decided, "told": self._told}

    def _note(self, change: Change) -> None:
        """Note when the database decided, and when a consumer here hears of it."""
        if change.lateness is not None and change.record.expires_at is not None:
            self._decided.append(change.lateness.total_seconds())
            self._told.append(time.time() - change.record.expires_at.timestamp())


if __name__ == "__main__":
    assert sys.argv[1:], "the number of the replica"
    configure_logging(LogOptions())
    answer_requests(Replica().handle)
