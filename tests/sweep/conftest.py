"""A feed whose changes are recorded, and ways to wait for them."""

import asyncio

import pytest

from lapse.core.feed import Feed

BOUND = 30.0
"""Seconds until a wait fails: far more than any wait takes."""


class Recorder:
    """Records every call, and waits for calls that have not come yet."""

    def __init__(self):
        self.seen = []
        self._came = asyncio.Event()

    def __call__(self, one):
        self.seen.append(one)
        self._came.set()

    async def until(self, is_enough):
        """Return once `is_enough` holds of what was seen."""
        async with asyncio.timeout(BOUND):
            while not is_enough(self.seen):
                self._came.clear()
                await self._came.wait()

    async def count(self, number):
        await self.until(lambda seen: len(seen) >= number)


class Observed:
    """The changes, reports and faults that a sweeper published."""

    def __init__(self):
        self.changes, self.reports, self.faults = Recorder(), Recorder(), Recorder()


@pytest.fixture
async def observed():
    return Observed()


@pytest.fixture
async def feed(observed):
    feed = Feed()
    feed.subscribe(observed.changes)
    return feed
