"""Conversations in ADK's Vertex AI service, with its own client, on a stand-in for Google's API."""

import pytest
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.sessions.base_session_service import GetSessionConfig
from killing import play
from worlds import World, other_service

from adk_builders import APP, USER, create_session, delete_session, get_session, message_event
from adk_builders import state_event as note_event
from vertex_stand_in import PAGE, StandIn, vertex_service

pytestmark = pytest.mark.long


@pytest.fixture
async def world(open_store, tmp_path):
    """The lobby is on each store."""
    async with other_service("vertex", tmp_path / "other") as inner:
        made = World(await open_store(), inner)
        yield made
        await made.close()


# The API takes the first id; the second gets an alias there, because it begins with a digit.
@pytest.mark.parametrize("session_id", ["s-1", "1_S"])
async def test_a_session_lives_in_both(world, session_id):
    service = world.process()
    session = await create_session(service, session_id=session_id, state={"k": 1})
    assert not world.inner.stand_in.sessions
    await service.append_event(session, note_event({"k": 2}))
    await service.append_event(session, message_event("hello"))
    await service.append_event(session, message_event("hi there", author="bot", delta={"l": 3}))
    for number in range(2 * PAGE):
        await service.append_event(session, message_event(f"more {number}"))
    other = world.process()
    found = await get_session(other, session_id)
    assert [event.id for event in found.events] == [event.id for event in session.events]
    assert found.state == session.state == {"k": 2, "l": 3}
    asked = {"app_name": APP, "user_id": USER, "session_id": session_id}
    newest = await other.get_session(**asked, config=GetSessionConfig(num_recent_events=2))
    assert newest.events == found.events[-2:]
    since = GetSessionConfig(after_timestamp=found.events[3].timestamp)
    assert (await other.get_session(**asked, config=since)).events == found.events[3:]
    listed = await other.list_sessions(app_name=APP, user_id=USER)
    assert [one.id for one in listed.sessions] == [session_id]
    await delete_session(other, session_id)
    assert await get_session(service, session_id) is None
    assert not world.inner.stand_in.sessions


async def test_a_list_of_many_pages_has_all_sessions_of_its_user_alone(world):
    service = world.process()
    user = 'o"neil\\ann'
    for number in range(2 * PAGE + 1):
        owner = USER if number == 0 else user
        session = await service.create_session(app_name=APP, user_id=owner, session_id=f"s{number}")
        await service.append_event(session, message_event())
    await service.create_session(app_name=APP, user_id=user, session_id="waits")
    listed = await service.list_sessions(app_name=APP, user_id=user)
    expected = ["waits", *(f"s{number}" for number in range(1, 2 * PAGE + 1))]
    assert sorted(one.id for one in listed.sessions) == sorted(expected)


async def test_an_old_conversation_has_its_id_and_is_read_appended_to_and_deleted(world):
    old = await world.inner.create_session(app_name=APP, user_id=USER, session_id="old")
    await world.inner.append_event(old, message_event("long ago"))
    service = world.process()
    with pytest.raises(AlreadyExistsError):
        await create_session(service, session_id="old")
    found = await get_session(service, "old")
    await service.append_event(found, message_event("again"))
    assert len((await get_session(service, "old")).events) == 2
    await delete_session(service, "old")
    assert await get_session(service, "old") is None


async def test_a_session_that_the_api_makes_slowly_is_handed_over(store):
    async with vertex_service(StandIn(pending=1)) as inner:
        world = World(store, inner)
        service = world.process()
        session = await create_session(service, session_id="slow")
        await service.append_event(session, message_event("hello"))
        assert len((await get_session(world.process(), "slow")).events) == 1
        await world.close()


async def test_a_hand_over_survives_fifty_kills(world):
    """No call outlives its time-out here, so that a message stands once.

    Seen to fail where whoever takes a hand-over over does not read the service before it writes.
    """
    for seed in range(50):
        assert await play(world, seed) == [], f"seed {seed}"
