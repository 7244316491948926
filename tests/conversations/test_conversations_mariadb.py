"""Conversations in ADK's DatabaseSessionService on a real MariaDB."""

import pytest
from killing import play
from test_conversations_races import race
from worlds import World, other_service

from adk_builders import create_session, delete_session, get_session, message_event
from adk_builders import state_event as note_event

pytestmark = pytest.mark.long


@pytest.fixture
async def world(open_store, tmp_path):
    """The lobby is on each store."""
    async with other_service("mariadb", tmp_path / "other") as inner:
        made = World(await open_store(), inner)
        yield made
        await made.close()


async def test_a_session_lives_in_both(world):
    service = world.process()
    session = await create_session(service, state={"k": 1, "user:name": "Ada 🙂"})
    await service.append_event(session, note_event({"k": 2}))
    await service.append_event(session, message_event("hello 🙂"))
    await service.append_event(session, message_event("hi there", author="bot"))
    found = await get_session(service, session.id)
    assert found == session
    assert found.state == {"k": 2, "user:name": "Ada 🙂"}
    await delete_session(service, session.id)
    assert await get_session(service, session.id) is None


async def test_a_hand_over_survives_fifty_kills(world):
    """Seen to fail with a hand-over that is settled before the service has its message."""
    for seed in range(50):
        assert await play(world, seed) == [], f"seed {seed}"


async def test_of_all_that_happens_at_once_an_acknowledged_message_stands(world):
    for seed in range(30):
        assert await race(world, seed) == [], f"seed {seed}"
