"""Steps of work in the background at a made-up time."""

import asyncio
from itertools import pairwise

from lapse.core.background import FOREVER


class Clock:
    """Has time pass whenever the event loop has nothing to do until then."""

    def __init__(self, loop):
        self.now = 1000.0
        select = loop._selector.select

        def jump(timeout):
            events = select(0)
            if not events and timeout is not None:
                self.now += timeout
            return events or select(0 if timeout is not None else None)

        loop._selector.select = jump
        loop.time = self.time

    def time(self):
        return self.now


class Steps:
    """Steps that are noted with their time, each with a pause or a failure after it."""

    def __init__(self, clock, *after):
        self.clock, self.after, self.times = clock, list(after), []
        self.taken = asyncio.Event()
        self._told = asyncio.Queue()

    async def __call__(self):
        self.times.append(self.clock.now)
        self._told.put_nowait(None)
        after = self.after.pop(0) if self.after else FOREVER
        if not self.after:
            self.taken.set()
        if isinstance(after, Exception):
            raise after
        return after

    async def until(self, number):
        while len(self.times) < number:
            await self._told.get()

    @property
    def pauses(self):
        return [after - before for before, after in pairwise(self.times)]
