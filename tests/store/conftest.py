"""Watches the statements that many callers share."""

import pytest
from shared_statements import Batches

from lapse.store.postgres import combining
from lapse.store.postgres.connections import Connections


@pytest.fixture
def batches(monkeypatch):
    """What happened and may happen to statements for many callers."""
    seen = Batches()
    try_for, arguments = Connections.try_for, combining.Queue._arguments

    def noted(self, batch):
        seen.keys.append([waiting.item.key for waiting in batch])
        return arguments(self, batch)

    async def watched(self, *args):
        await seen.before()
        found = await try_for(self, *args)
        seen.done.append(len(found))
        await seen.after()
        return found

    monkeypatch.setattr(combining.Queue, "_arguments", noted)
    monkeypatch.setattr(Connections, "try_for", watched)
    return seen


@pytest.fixture
def one_lane(monkeypatch):
    """At most one statement of a kind is in flight."""
    monkeypatch.setattr(combining, "LANES", 1)
