"""A feed with a memory, and ways to wait for what it brings."""

import asyncio

import pytest

from lapse.core.feed import Feed

BOUND = 30.0
"""Seconds until a wait gives up: far from what it takes, and a failure, never a measure."""


class Recorder:
    """Everything that came, and a way to wait for what has not come yet."""

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
    """What a sweeper let the world know."""

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
