"""A service that takes no ids of clients: it chooses its own, and clients keep theirs."""

import pytest
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from killing import play
from worlds import LEASE_OVER, World

from adk_builders import APP, USER, create_session, delete_session, get_session, message_event
from lapse.conversations.rules import Token, Where
from lapse.core.errors import OutcomeUnknownError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from odd_service import Fault


class PickyService(InMemorySessionService):
    """Refuses every id that it has not chosen, as some services do."""

    def __init__(self):
        super().__init__()
        self.made = 0

    async def create_session(self, *, session_id=None, **asked):
        if session_id is not None:
            raise ValueError("User-provided session id is not supported.")
        self.made += 1
        return await super().create_session(session_id=f"own{self.made}", **asked)

    async def get_session(self, *, session_id, **asked):
        if not session_id.startswith("own"):
            raise ValueError("Invalid session id.")
        return await super().get_session(session_id=session_id, **asked)

    async def delete_session(self, *, session_id, **asked):
        if not session_id.startswith("own"):
            raise ValueError("Invalid session id.")
        await super().delete_session(session_id=session_id, **asked)


@pytest.fixture
async def world(store):
    made = World(store, PickyService())
    yield made
    await made.close()


async def test_a_client_keeps_the_id_that_the_service_does_not_take(world):
    service = world.process()
    session = await create_session(service, session_id="mine", state={"k": 1})
    await service.append_event(session, message_event("hello"))
    await service.append_event(session, message_event("hi there", author="bot", delta={"k": 2}))
    other = world.process()
    found = await get_session(other, "mine")
    assert found == session
    assert (found.id, found.state) == ("mine", {"k": 2})
    listed = await other.list_sessions(app_name=APP, user_id=USER)
    assert [one.id for one in listed.sessions] == ["mine"]
    told = await other.list_with_lifecycle(app_name=APP, user_id=USER)
    assert [(one.session.id, one.lifecycle.status) for one in told] == [("mine", Status.USED)]
    assert list(world.inner.sessions[APP][USER]) == ["own1"]
    await delete_session(other, "mine")
    assert not world.inner.sessions[APP][USER]
    assert await get_session(service, "mine") is None


async def test_a_session_whose_id_nobody_has_noted_is_found_by_its_mark(world):
    service = world.process()
    session = await create_session(service, session_id="mine")
    world.odd.arm("create", None, Fault.LOST)
    with pytest.raises(OutcomeUnknownError):
        await service.append_event(session, message_event("hello"))
    world.pass_time()
    found = await get_session(world.process(), "mine")
    assert [event.content.parts[0].text for event in found.events] == ["hello"]
    assert world.inner.made == 1


async def test_a_hand_over_under_another_id_survives_kills_and_leaves_nothing(world):
    kept = 0
    for seed in range(60):
        assert await play(world, seed) == [], f"seed {seed}"
        place = await world.process().hand_overs.store.place(SessionKey(APP, USER, f"s{seed}"))
        kept += place.where is Where.ELSEWHERE
        assert len(world.inner.sessions.get(APP, {}).get(USER, {})) == kept, f"seed {seed}"


async def listed(process):
    found = await process.list_sessions(app_name=APP, user_id=USER)
    return [one.id for one in found.sessions]


async def test_a_list_never_shows_the_id_that_the_service_has_chosen(world):
    """Seen to fail while a session was on its way in or out: it was listed by both ids, or shown
    although it was being deleted."""
    service, other = world.process(), world.process()
    session = await create_session(service, session_id="mine")
    world.odd.arm("append", Fault.AWAY)
    with pytest.raises(OutcomeUnknownError):
        await service.append_event(session, message_event("hello"))
    assert await listed(other) == ["mine"]
    world.pass_time()
    await other.hand_overs.finish_overdue(10)
    assert await listed(other) == ["mine"]
    world.odd.arm("delete", Fault.AWAY)
    with pytest.raises(OutcomeUnknownError):
        await delete_session(service, "mine")
    assert await listed(other) == []


async def test_a_list_during_a_hand_over_has_its_session_once(world):
    """Seen to fail where the list knew an alias only if it had read the lobby after it was made."""
    service, other = world.process(), world.process()
    session = await create_session(service, session_id="mine")

    async def handed_over_first(name, call):
        if name == "list":
            world.odd.around = None
            await service.append_event(session, message_event("hello"))
        return await call()

    world.odd.around = handed_over_first
    assert await listed(other) == ["mine"]
    assert world.inner.made == 1


async def test_a_list_knows_a_session_that_is_younger_than_what_the_lobby_has_told(world):
    """Seen to fail without a second look at the lobby: it was listed by the service's id."""
    service, other = world.process(), world.process()

    async def created_first(name, call):
        if name == "list":
            world.odd.around = None
            session = await create_session(service, session_id="mine")
            await service.append_event(session, message_event("hello"))
        return await call()

    world.odd.around = created_first
    assert await listed(other) == ["mine"]


async def test_a_session_whose_record_was_lost_reads_as_an_old_conversation(world):
    """It is known by the only id that is left of it."""
    service = world.process()
    session = await create_session(service, session_id="mine")
    await service.append_event(session, message_event("hello"))
    store, key = service.hand_overs.store, SessionKey(APP, USER, "mine")
    token = Token.new()
    begun = await store.begin_delete(key, token=token, lease=LEASE_OVER)
    assert await store.end_delete(key, begun.value.token)
    assert await listed(world.process()) == ["own1"]
    assert len((await get_session(world.process(), "own1")).events) == 1
