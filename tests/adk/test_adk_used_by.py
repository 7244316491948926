"""Who speaks first: a real `Runner` on sessions that only the user's message makes used."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from google.adk.agents import LlmAgent
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from adk_builders import (
    APP,
    USER,
    create_session,
    eventually,
    get_session,
    message_event,
    state_event,
    status_of,
    texts,
)
from adk_versions import since_adk
from lapse import LapseSessionService
from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status
from lapse.core.messages import UsedBy

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself


def profile(tool_context: ToolContext) -> dict[str, str]:
    """Look up who the user is."""
    tool_context.state["name"] = "Ada"
    return {"name": "Ada"}


class Greeter(BaseLlm):
    """Looks the user up, greets them, and later answers; `fails` makes the model refuse."""

    model: str = "greeter"
    fails: bool = False
    gate: object = None

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002 - ADK's
        if self.gate is not None:
            await self.gate.wait()
        last = llm_request.contents[-1].parts[-1] if llm_request.contents else types.Part(text="")
        if self.fails:
            yield LlmResponse(error_code="RESOURCE_EXHAUSTED", error_message="no quota")
        elif last.function_response is not None:
            yield LlmResponse(content=said("Hello Ada!"))
        elif last.text and last.text.startswith("hi"):
            yield LlmResponse(content=said("What can I do?"))
        else:
            call = types.Part.from_function_call(name="profile", args={})
            yield LlmResponse(content=types.Content(role="model", parts=[call]))


def said(text, role="model"):
    return types.Content(role=role, parts=[types.Part(text=text)])


async def has_events(service, session_id):
    return bool((await get_session(service, session_id)).events)


async def run(service, session_id, text=None, *, delta=None, **model):
    agent = LlmAgent(name="waiter", model=Greeter(**model), tools=[profile])
    runner = Runner(app_name=APP, agent=agent, session_service=service)
    message = None if text is None else said(text, "user")
    asked = {"user_id": USER, "session_id": session_id, "new_message": message}
    return [event async for event in runner.run_async(**asked, state_delta=delta)]


@pytest.fixture
async def service(store):
    service = LapseSessionService(store, used_by="user")
    yield service
    await service.close()


@since_adk("2.0", "a run needs a message")
async def test_a_run_without_a_message_leaves_the_session_waiting_and_its_words_are_read(service):
    """Seen to fail with every function's response counted as the user's."""
    session = await create_session(service)
    await run(service, session.id, delta={"page": "/pricing"})
    assert await status_of(service, session.id) is Status.WAITING
    found = await get_session(service, session.id)
    assert texts(found)[-1] == "Hello Ada!"
    assert (found.state["page"], found.state["name"]) == ("/pricing", "Ada")
    await run(service, session.id, "hi")
    assert await status_of(service, session.id) is Status.USED
    used = await get_session(service, session.id)
    assert used.events[: len(found.events)] == found.events
    assert texts(used)[-2:] == ["hi", "What can I do?"]


async def test_a_greeting_that_a_program_appends_waits_with_the_session(service):
    session = await create_session(service)
    await service.append_event(session, message_event("Welcome", author="waiter"))
    assert await status_of(service, session.id) is Status.WAITING
    assert await get_session(service, session.id) == session
    await service.append_event(session, message_event("hi"))
    assert await status_of(service, session.id) is Status.USED
    assert texts(await get_session(service, session.id)) == ["Welcome", "hi"]


@since_adk("2.0", "a run needs a message")
async def test_a_failed_call_of_the_model_leaves_the_session_waiting(service):
    session = await create_session(service)
    events = await run(service, session.id, delta={"page": "/"}, fails=True)
    assert events[-1].error_code == "RESOURCE_EXHAUSTED"
    assert await status_of(service, session.id) is Status.WAITING


@pytest.mark.parametrize("author", ["user", "waiter"])
async def test_the_response_of_a_background_job_counts_as_the_user(service, author):
    session = await create_session(service)
    response = types.Part.from_function_response(name="profile", response={"name": "Ada"})
    content = types.Content(role="user", parts=[response])
    await service.append_event(session, Event(author=author, invocation_id="j", content=content))
    assert await status_of(service, session.id) is Status.USED


@since_adk("2.0", "a run needs a message")
async def test_a_runner_in_a_program_gives_a_fresh_ttl_when_it_begins(service):
    """Seen to fail with a look-up that only reads."""
    session = await create_session(service)
    key, gate = SessionKey(APP, USER, session.id), asyncio.Event()
    before = (await service.lifecycle(key)).expires_at
    await get_session(service, session.id)
    assert (await service.lifecycle(key)).expires_at == before
    running = asyncio.create_task(run(service, session.id, delta={"page": "/"}, gate=gate))
    await eventually(partial(has_events, service, session.id))
    record = await service.lifecycle(key)
    assert record.expires_at > before
    gate.set()
    await running
    assert record.expires_at < (await service.lifecycle(key)).expires_at


@since_adk("2.0", "a run needs a message")
async def test_a_run_that_outlasts_the_ttl_still_finds_its_session(service):
    """Seen to fail with agents' events that an expired session refuses."""
    held = await create_session(service)
    gate = asyncio.Event()
    late = asyncio.create_task(run(service, held.id, delta={"page": "/"}, gate=gate))
    await eventually(partial(has_events, service, held.id))
    await service.expire(SessionKey(APP, USER, held.id))
    gate.set()
    await late
    record = await service.lifecycle(SessionKey(APP, USER, held.id))
    assert (record.status, record.resurrections) == (Status.WAITING, 1)
    assert texts(await get_session(service, held.id))[-1] == "Hello Ada!"


@pytest.mark.parametrize(
    "told", ["anyone", "user", "anyone,concierge=user", "user,concierge=anyone"]
)
async def test_the_rule_of_a_session_outlasts_the_service_that_created_it(store, told):
    """Seen to fail with a rule that the appending service has, and not the session."""
    by_user = told in {"user", "anyone,concierge=user"}
    one = LapseSessionService(store, used_by=told)
    other = LapseSessionService(store, used_by="anyone" if by_user else "user")
    session = await create_session(one, session_id="mine")
    key = SessionKey(APP, USER, "mine")
    await other.expire(key)
    await other.resurrect(key, cause=Cause.REQUEST)
    found = await get_session(other, session.id)
    await other.append_event(found, message_event("Welcome", author="waiter"))
    status = Status.WAITING if by_user else Status.USED
    assert await status_of(other, session.id) is status
    assert (await one.lifecycle(key)).used_by is (UsedBy.USER if by_user else UsedBy.ANYONE)
    await one.ensure_legacy_session(SessionKey(APP, USER, "legacy"))
    legacy = await one.lifecycle(SessionKey(APP, USER, "legacy"))
    assert legacy.used_by is (UsedBy.USER if by_user else UsedBy.ANYONE)


async def test_a_waiting_session_is_reused_only_by_a_creation_with_its_rule(store):
    """Seen to fail with `reuse_waiting` that does not compare the rule."""
    one, other = (LapseSessionService(store, used_by=rule) for rule in ("anyone", "user"))
    first = await create_session(one, reuse=True)
    assert (await create_session(one, reuse=True)).id == first.id
    assert (await create_session(other, reuse=True)).id != first.id


async def test_without_a_rule_the_agents_first_word_makes_the_session_used(store):
    service = LapseSessionService(store)
    session = await create_session(service)
    await service.append_event(session, state_event({"page": "/"}))
    await service.append_event(session, message_event("Welcome", author="waiter"))
    assert await status_of(service, session.id) is Status.USED


def test_a_wrong_rule_is_refused_where_it_is_given(store):
    with pytest.raises(InvalidValueError, match="anyone,shop=user"):
        LapseSessionService(store, used_by="users")
