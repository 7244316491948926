"""Conversations in ADK's Redis service, on a real Valkey, and in ADK's own SQLite service."""

import pytest
from killing import play
from worlds import World, other_service

from adk_builders import create_session, delete_session, get_session, message_event
from adk_builders import state_event as note_event


@pytest.fixture(params=["redis", "file"])
async def world(request, open_store, tmp_path):
    """The lobby is on each store."""
    async with other_service(request.param, tmp_path / "other") as inner:
        made = World(await open_store(), inner)
        yield made
        await made.close()


async def test_a_session_lives_in_both(world):
    service = world.process()
    session = await create_session(service, state={"k": 1, "user:name": "Ada"})
    await service.append_event(session, note_event({"k": 2}))
    await service.append_event(session, message_event("hello"))
    await service.append_event(session, message_event("hi there", author="bot"))
    found = await get_session(service, session.id)
    assert [event.id for event in found.events] == [event.id for event in session.events]
    assert found.state == session.state == {"k": 2, "user:name": "Ada"}
    await delete_session(service, session.id)
    assert await get_session(service, session.id) is None


async def test_a_hand_over_survives_kills(world):
    """No call outlives its time-out, so that a message stands once in Redis, too."""
    for seed in range(8):
        assert await play(world, seed) == [], f"seed {seed}"


@pytest.mark.long
async def test_a_hand_over_survives_fifty_kills(world):
    for seed in range(50):
        assert await play(world, seed) == [], f"seed {seed}"
