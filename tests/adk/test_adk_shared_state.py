"""What agents and clients add to app and user state that is full, at the service."""

import logging

import pytest
from google.adk.agents.base_agent import BaseAgent
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.runners import Runner
from google.genai import types

from adk_builders import (
    APP,
    USER,
    create_session,
    get_session,
    message_event,
    state_event,
    texts,
)
from lapse import LapseSessionService
from lapse.auth.principals import Principal, acting

MOST = 1000
LONG = "a secret " * 200
SETTING = "LAPSE_MAX_SHARED_STATE_KIB"


@pytest.fixture
async def service(open_store):
    async with LapseSessionService(await open_store(shared_state=MOST)) as service:
        yield service


def warnings(caplog):
    return [line for line in caplog.records if line.name == "lapse.adk.shared_state"]


@pytest.mark.parametrize("used", [True, False], ids=["used", "waiting"])
async def test_what_an_agent_writes_beyond_the_size_is_left_out_and_all_else_is_stored(
    service, caplog, used
):
    """Seen to fail with an agent's event that is refused, and with one that keeps its keys."""
    session = await create_session(service, state={"user:name": "Ann"})
    if used:
        await service.append_event(session, message_event())
    delta = {"user:diary": LONG, "user:mood": "fine", "app:tone": "dry", "own": 1, "temp:t": 1}
    event = message_event("the answer", author="parrot", delta=delta)
    assert await service.append_event(session, event) is event
    kept = {"app:tone": "dry", "own": 1}
    assert event.actions.state_delta == kept
    assert session.state == kept | {"user:name": "Ann", "temp:t": 1}
    found = await get_session(service, session.id)
    assert found.state == kept | {"user:name": "Ann"}
    assert texts(found)[-1] == "the answer"
    assert found.events[-1].actions.state_delta == kept
    (line,) = warnings(caplog)
    assert line.levelno == logging.WARNING
    assert (line.app, line.keys) == (APP, "user:diary, user:mood")
    assert line.session == session.id[:8]
    assert "secret" not in str(vars(line))
    assert SETTING in line.getMessage()


async def test_an_agent_may_fill_both_and_the_user_still_has_the_answer(service, caplog):
    session = await create_session(service)
    delta = {"user:diary": LONG, "app:lessons": LONG}
    await service.append_event(session, message_event("the answer", author="parrot", delta=delta))
    found = await get_session(service, session.id)
    assert (texts(found), found.state) == (["the answer"], {})
    (line,) = warnings(caplog)
    assert line.keys == "user:diary, app:lessons"


@pytest.mark.parametrize("make", [message_event, state_event], ids=["message", "state only"])
async def test_what_a_client_asks_for_beyond_the_size_is_refused_whole(service, caplog, make):
    """Seen to fail with the keys of a user's event left out, too."""
    session = await create_session(service)
    before = session.model_copy(deep=True)
    with pytest.raises(ValueError, match=SETTING) as refused:
        await service.append_event(session, make(delta={"own": 1, "user:diary": LONG}))
    assert "user: keys" in str(refused.value)
    assert session == before
    assert (await get_session(service, session.id)).model_dump() == before.model_dump()
    assert warnings(caplog) == []
    await service.append_event(session, make(delta={"own": 1, "user:diary": "short"}))
    assert (await get_session(service, session.id)).state == {"own": 1, "user:diary": "short"}


async def test_a_creation_beyond_the_size_is_refused(service):
    with pytest.raises(ValueError, match=SETTING) as refused:
        await create_session(service, state={"own": 1, "app:lessons": LONG})
    assert str(refused.value).startswith("state: its app: keys")
    assert (await service.list_sessions(app_name=APP, user_id=USER)).sessions == []


class Scribe(BaseAgent):
    """An agent that writes more than there is room for, then what there is room for."""

    async def _run_async_impl(self, context):
        for text, delta in (("one", {"app:lessons": LONG}), ("two", {"app:lesson": "short"})):
            yield Event(
                author=self.name,
                invocation_id=context.invocation_id,
                content=types.Content(role="model", parts=[types.Part(text=text)]),
                actions=EventActions(state_delta=delta),
            )


@pytest.mark.filterwarnings("ignore")
async def test_a_run_for_a_user_writes_app_state_and_answers_where_it_is_full(service):
    """The agent acts for a user, who may not set app state by a request.

    Seen to fail with app state refused at the service, by who asks.
    """
    runner = Runner(app_name=APP, agent=Scribe(name="scribe"), session_service=service)
    session = await create_session(service)
    message = types.Content(role="user", parts=[types.Part(text="hello")])
    with acting(Principal(USER)):
        told = [
            event.content.parts[0].text
            async for event in runner.run_async(
                user_id=USER, session_id=session.id, new_message=message
            )
        ]
    assert told == ["one", "two"]
    found = await get_session(service, session.id)
    assert texts(found) == ["hello", "one", "two"]
    assert found.state == {"app:lesson": "short"}
