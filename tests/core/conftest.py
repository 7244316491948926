"""A made-up time for the work in the background."""

import asyncio

import pytest
from made_up_time import Clock


@pytest.fixture
async def clock(monkeypatch):
    clock = Clock(asyncio.get_running_loop())
    monkeypatch.setattr("lapse.core.background.time.monotonic", clock.time)
    return clock


@pytest.fixture
def jitter(monkeypatch):
    """Whether each pause after a failure is the shortest or the longest that it can be."""
    drawn = [1.0]
    monkeypatch.setattr("lapse.core.background.random.random", lambda: drawn[0])
    return drawn
