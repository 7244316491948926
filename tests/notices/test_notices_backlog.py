"""Whoever watches a session hears of its expiry, also if it expires in a backlog."""

import asyncio

from backends import DUE, HOUR, T0, create, key
from lapse.core.feed import Feed
from lapse.notices.rules import NoticeKind, WatchOptions
from lapse.notices.watcher import Watcher
from lapse.sweep.rules import FEW
from lapse.sweep.sweeper import sweep_once

BOUND = 30.0


class Listener:
    """An audience that keeps what it hears."""

    def __init__(self):
        self.heard, self._came = [], asyncio.Event()

    def hear(self, notices):
        self.heard += [(notice.kind, notice.record.key) for notice in notices]
        self._came.set()

    def beat(self):
        pass

    def end(self):
        pass

    async def until(self, number):
        async with asyncio.timeout(BOUND):
            while len(self.heard) < number:
                self._came.clear()
                await self._came.wait()


async def test_each_watched_session_of_a_backlog_is_told_of_at_once(store):
    """The watcher's clock stands still and its heartbeat is far: only the sweep can tell it.

    Seen to fail with a watcher that does nothing with expiries of a backlog.
    """
    for number in range(FEW + 5):
        await create(store, f"s{number}")
    feed, many = Feed(), []
    feed.subscribe(lambda _: None, of_many=many.append)
    watched = [key("s0"), key(f"s{FEW + 4}")]
    async with Watcher(store.at(T0), feed, WatchOptions(heartbeat=HOUR)) as watcher:
        listeners = [Listener() for _ in watched]
        for where, listener in zip(watched, listeners, strict=True):
            watcher.watch(where, listener)
            await listener.until(1)
        await sweep_once(store.at(DUE), feed)
        for where, listener in zip(watched, listeners, strict=True):
            await listener.until(2)
            assert listener.heard == [(NoticeKind.LIFECYCLE, where), (NoticeKind.EXPIRED, where)]
    assert sum(map(len, many)) == FEW + 5
