"""A lobby on each store, with conversations in a service that a test can make odd."""

import pytest
from worlds import World, other_service

from odd_service import DoublingService


@pytest.fixture
async def world(store, tmp_path):
    """Conversations in ADK's in-memory service, behind each store as the lobby."""
    async with other_service("memory", tmp_path) as inner:
        made = World(store, inner)
        yield made
        await made.close()


@pytest.fixture
async def doubling_world(store):
    """Conversations in a service that stores an event as often as it is appended."""
    made = World(store, DoublingService())
    yield made
    await made.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def worlds(request, open_store, tmp_path):
    """Conversations in each of ADK's own services; the lobby is on each store."""
    async with other_service(request.param, tmp_path / "other") as inner:
        # It connects and makes its tables now, and not within the time-out of a test.
        await inner.list_sessions(app_name="nobody's", user_id="nobody")
        made = World(await open_store(), inner)
        yield made
        await made.close()
