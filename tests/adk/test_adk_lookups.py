"""ADK's look-ups before a run resurrect an expired session, and no other read does."""

from __future__ import annotations

import ast
import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import google.adk
import httpx
import pytest
from google.adk.agents import BaseAgent, LiveRequestQueue, LlmAgent
from google.adk.cli.service_registry import get_service_registry
from google.adk.cli.utils.base_agent_loader import BaseAgentLoader
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from adk_builders import APP, USER, create_session, get_session, status_of, texts
from lapse import LapseSessionService, Principal, Quotas
from lapse.adk import private
from lapse.auth.principals import acting
from lapse.core.clock import utc_now
from lapse.core.documents import StateDelta
from lapse.core.errors import TooManyCreatesError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, ChangeKind, Status
from parts import store_with_parts

STATE = {"tenant": "acme", "cart": [1, 2]}
METADATA = {"page": "/pricing"}

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself


def words(text, role="user"):
    return types.Content(role=role, parts=[types.Part(text=text)])


@pytest.fixture
async def service(store):
    async with LapseSessionService(store) as opened:
        yield opened


async def expired(service, session_id="s-1", user=USER):
    """Let a session with state and metadata expire, and return its key."""
    key = SessionKey(APP, user, session_id)
    await service.store.at(utc_now() - timedelta(hours=1)).create(
        key, state=StateDelta(session=STATE), ttl=timedelta(minutes=30), metadata=METADATA
    )
    return key


class NoLineError(Exception):
    """There is no live connection."""


class Scripted(BaseLlm):
    """Answers; it reads a session first if the message names one, and has no live connection."""

    model: str = "scripted"

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002 - ADK's
        last = llm_request.contents[-1].parts[-1]
        if last.text and "read" in last.text:
            call = types.Part.from_function_call(name="read", args={"session_id": "other"})
            yield LlmResponse(content=types.Content(role="model", parts=[call]))
            return
        told = last.text or str(last.function_response.response)
        yield LlmResponse(content=words(f"heard {told}", "model"))

    def connect(self, llm_request):
        raise NoLineError


async def read(session_id: str, tool_context: ToolContext) -> str:
    """Read a session of the same user."""
    context = tool_context._invocation_context
    found = await get_session(context.session_service, session_id, user_id=context.user_id)
    return "found" if found else "nothing"


class Repeats(BaseAgent):
    """An agent without a model."""

    async def _run_async_impl(self, ctx):
        yield Event(author=self.name, content=words("heard hi", "model"))


def agent():
    return LlmAgent(name="waiter", model=Scripted(), tools=[read])


def flow():
    from google.adk.workflow import START, Workflow

    def answer(node_input: str) -> Event:
        return Event(author="flow", content=words(f"heard {node_input}", "model"))

    return Workflow(name="flow", edges=[(START, answer)])


# Every way in. Each says something to a session, as the service's user.


async def by_run_async(service, key, text="hi", **options):
    options.setdefault("agent", agent())
    runner = Runner(app_name=key.app_name, session_service=service, **options)
    message = words(text)
    async for _ in runner.run_async(
        user_id=key.user_id, session_id=key.session_id, new_message=message
    ):
        pass


async def by_an_agent_without_a_model(service, key):
    await by_run_async(service, key, agent=Repeats(name="repeats"))


async def by_a_workflow(service, key):
    await by_run_async(service, key, agent=flow())


async def by_auto_create(service, key):
    await by_run_async(service, key, auto_create_session=True)


async def by_a_program_without_a_loop(service, key):
    runner = Runner(app_name=key.app_name, session_service=service, agent=agent())
    arguments = {"user_id": key.user_id, "session_id": key.session_id, "new_message": words("hi")}
    await asyncio.to_thread(lambda: list(runner.run(**arguments)))


async def by_run_debug(service, key, text="hi"):
    runner = Runner(app_name=key.app_name, session_service=service, agent=agent())
    await runner.run_debug(text, user_id=key.user_id, session_id=key.session_id, quiet=True)


async def by_a_trigger(service, key, text="hi"):
    from google.adk.cli.trigger_routes import TriggerRouter

    class Server:
        session_service = service

        async def get_runner_async(self, app_name):
            return Runner(app_name=app_name, session_service=service, agent=agent())

    await TriggerRouter(Server())._run_agent(
        app_name=key.app_name,
        user_id=key.user_id,
        message_text=text,
        session_id=key.session_id,
        session_state={"fresh": True},
    )


async def by_an_evaluation(service, key):
    from google.adk.evaluation.eval_case import SessionInput
    from google.adk.evaluation.evaluation_generator import _get_or_create_eval_session

    pinned = SessionInput(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, state={"fresh": True}
    )
    session = await _get_or_create_eval_session(service, pinned, None)
    assert session.id == key.session_id
    await by_run_async(service, key)


async def by_a2a(service, key, executor="A2aAgentExecutor"):
    pytest.importorskip("a2a", reason="pip install 'a2a-sdk[http-server]'")
    from a2a.server.agent_execution import RequestContext
    from a2a.server.events import EventQueue
    from google.adk.a2a.converters.request_converter import AgentRunRequest
    from google.adk.a2a.executor.a2a_agent_executor import A2aAgentExecutor
    from google.adk.a2a.executor.a2a_agent_executor_impl import _A2aAgentExecutor

    runner = Runner(app_name=key.app_name, session_service=service, agent=agent())
    request = AgentRunRequest(
        user_id=key.user_id, session_id=key.session_id, new_message=words("hi")
    )
    assert RequestContext, EventQueue
    if executor == "A2aAgentExecutor":
        session = await A2aAgentExecutor(runner=runner)._prepare_session(None, request, runner)
        assert session.id == key.session_id
    else:
        found = await _A2aAgentExecutor(runner=runner)._resolve_session(request, runner)
        assert found == key.session_id
    await by_run_async(service, key)


async def by_the_newer_a2a(service, key):
    await by_a2a(service, key, "_A2aAgentExecutor")


class Loader(BaseAgentLoader):
    """Has the one agent."""

    def list_agents(self):
        return [APP]

    def load_agent(self, agent_name):
        return agent()


def server_on(service, tmp_path, **options):
    """Return a client of ADK's own server, as `adk api_server` makes it."""
    from google.adk.cli.fast_api import get_fast_api_app

    get_service_registry().register_session_service("given", lambda uri, **_: service)
    app = get_fast_api_app(
        agents_dir=str(tmp_path),
        agent_loader=Loader(),
        session_service_uri="given://",
        web=False,
        **options,
    )
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def body_of(key, text="hi"):
    return {
        "appName": key.app_name,
        "userId": key.user_id,
        "sessionId": key.session_id,
        "newMessage": {"role": "user", "parts": [{"text": text}]},
    }


WAYS = [
    by_run_async,
    by_an_agent_without_a_model,
    by_a_workflow,
    by_auto_create,
    by_run_debug,
    by_a_trigger,
    by_an_evaluation,
    by_a2a,
    by_the_newer_a2a,
]


async def assert_it_came_back(service, key):
    session = await get_session(service, key.session_id, user_id=key.user_id)
    assert session is not None
    assert {name: session.state[name] for name in STATE} == STATE
    assert "fresh" not in session.state
    assert [text for text in texts(session) if text][-1].startswith("heard")
    record = await service.lifecycle(key)
    assert (record.status, record.resurrections) == (Status.USED, 1)
    assert record.metadata["page"] == "/pricing"


@pytest.mark.parametrize("say", WAYS, ids=lambda say: say.__name__)
async def test_the_first_message_brings_an_expired_session_back(service, say):
    """Seen to fail with an empty LOOKS_BEFORE_A_RUN: not found, or made anew without its state."""
    changes = []
    service.feed.subscribe(changes.append)
    key = await expired(service)
    await say(service, key)
    await assert_it_came_back(service, key)
    causes = [change.cause for change in changes if change.kind is ChangeKind.RESURRECTED]
    assert causes == [Cause.REQUEST]


async def test_the_first_message_of_a_program_without_a_loop_brings_it_back_too(tmp_path):
    async with LapseSessionService(store_with_parts(f"sqlite:///{tmp_path}/lapse.db")) as service:
        key = await expired(service)
        await by_a_program_without_a_loop(service, key)
        await assert_it_came_back(service, key)


@pytest.mark.parametrize("path", ["/run", "/run_sse"])
async def test_the_run_routes_of_adks_own_server_bring_an_expired_session_back(
    service, tmp_path, path
):
    """Seen to fail without `run_agent_sse` in LOOKS_BEFORE_A_RUN: /run_sse answers 404."""
    key = await expired(service)
    async with server_on(service, tmp_path) as client:
        answer = await client.post(path, json=body_of(key))
    assert answer.status_code == 200
    assert "heard hi" in answer.text
    await assert_it_came_back(service, key)


async def test_a_live_connection_brings_an_expired_session_back(service):
    key = await expired(service)
    runner = Runner(app_name=APP, session_service=service, agent=agent())
    with suppress(NoLineError):
        async for _ in runner.run_live(
            user_id=USER, session_id=key.session_id, live_request_queue=LiveRequestQueue()
        ):
            pass
    assert await status_of(service, key.session_id) is Status.WAITING
    assert (await get_session(service, key.session_id)).state == STATE


async def test_every_other_read_and_list_finds_no_expired_session(service, tmp_path):
    """Seen to fail with a service that revives for every existence check."""
    key = await expired(service)
    assert await get_session(service, key.session_id) is None
    existence = GetSessionConfig(num_recent_events=0)
    assert await get_session(service, key.session_id, config=existence) is None
    path = f"/apps/{APP}/users/{USER}/sessions"
    async with server_on(service, tmp_path) as client:
        assert (await client.get(f"{path}/{key.session_id}")).status_code == 404
        patched = await client.patch(f"{path}/{key.session_id}", json={"stateDelta": {"k": 1}})
        assert patched.status_code == 404
        remembered = await client.patch(
            f"/apps/{APP}/users/{USER}/memory", json={"session_id": key.session_id}
        )
        assert remembered.status_code == 404
        assert (await client.get(path)).json() == []
    record = await service.lifecycle(key)
    assert (record.status, record.resurrections) == (Status.EXPIRED, 0)


@pytest.mark.parametrize("say", [by_run_async, by_run_debug, by_a_trigger])
async def test_what_a_tool_reads_during_a_run_is_no_look_before_a_run(service, say):
    """Seen to fail with a search of the whole stack, which finds `run_debug` and the trigger."""
    await expired(service, "other")
    await create_session(service, session_id="mine")
    await say(service, SessionKey(APP, USER, "mine"), "read it")
    said = [event.content.parts[0] for event in (await get_session(service, "mine")).events]
    assert said[2].function_response.response == {"result": "nothing"}
    assert await status_of(service, "other") is Status.EXPIRED


async def test_a_plain_create_of_an_expired_id_still_makes_a_new_session(service):
    key = await expired(service)
    new = await create_session(service, session_id=key.session_id, state={"fresh": True})
    assert new.state == {"fresh": True}
    assert (await service.lifecycle(key)).resurrections == 0


async def test_get_or_create_of_an_unknown_id_makes_a_new_session(service):
    await by_auto_create(service, SessionKey(APP, USER, "never was"))
    found = await get_session(service, "never was")
    assert texts(found) == ["hi", "heard hi"]


async def test_a_run_of_a_session_that_is_not_restorable_is_refused(open_store):
    async with LapseSessionService(await open_store(horizon=timedelta(0))) as service:
        key = await expired(service)
        with pytest.raises(SessionNotFoundError):
            await by_run_async(service, key)


# The quotas and the owner.


async def test_a_look_before_a_run_draws_from_the_quotas_like_a_request(store):
    """Seen to fail with Cause.RUN, which no rate limit refuses."""
    quotas = Quotas(creates_per_user=1)
    async with LapseSessionService(store, quotas=quotas) as service:
        first, second = await expired(service, "s-1"), await expired(service, "s-2")
        await by_run_async(service, first)
        with pytest.raises(TooManyCreatesError):
            await by_run_async(service, second)
        assert await status_of(service, "s-2") is Status.EXPIRED
        assert sum(service.admission.refused.values()) == 1


async def test_nobody_resurrects_another_users_session_by_a_run(service):
    key = await expired(service)
    with acting(Principal("eve")), pytest.raises(SessionNotFoundError):
        await by_run_async(service, key)
    assert await status_of(service, key.session_id) is Status.EXPIRED


# Services around Lapse's.


class Around(BaseSessionService):
    """A service that passes everything on, as those that trace or cache do."""

    def __init__(self, inner):
        self.inner = inner

    async def create_session(self, **arguments):
        return await self.inner.create_session(**arguments)

    async def get_session(self, **arguments):
        async with asyncio.timeout(30):
            return await self._read(arguments)

    async def _read(self, arguments):
        return await self.inner.get_session(**arguments)

    async def list_sessions(self, **arguments):
        return await self.inner.list_sessions(**arguments)

    async def delete_session(self, **arguments):
        return await self.inner.delete_session(**arguments)

    async def append_event(self, session, event):
        return await self.inner.append_event(session, event)


async def test_a_service_around_lapses_hides_no_look_before_a_run(service):
    """Seen to fail with a look at the direct caller only."""
    key = await expired(service)
    await by_run_async(Around(service), key)
    await assert_it_came_back(service, key)


async def test_nobody_asks_who_looks_while_the_session_lives(service, monkeypatch):
    """A read of a living session costs nothing more."""
    session = await create_session(service)
    asked = []
    monkeypatch.setattr("lapse.adk.service.is_look_before_a_run", lambda: asked.append(1))
    await by_run_async(service, SessionKey(APP, USER, session.id))
    assert await get_session(service, "unknown") is None
    assert asked == [1]


# All of ADK's functions that read a session, by module and name, and what each is.

READS_OTHERWISE = {
    "google.adk.cli.api_server.get_session": "the route that shows a session",
    "google.adk.cli.api_server.update_session": "the route that changes state, and runs nothing",
    "google.adk.cli.api_server.patch_memory": "remembers a conversation",
    "google.adk.cli.cli.run_cli": "saves the session after the run",
    "google.adk.cli.conformance.cli_record._create_conformance_test_files": "a client of a server",
    "google.adk.cli.conformance.cli_test._validate_test_results": "a client of a server",
    "google.adk.cli.dev_server.add_session_to_eval_set": "copies a conversation",
    "google.adk.cli.dev_server.get_event_graph": "draws an event",
    "google.adk.cli.utils.local_storage.get_session": "passes a read on to services of ADK's own",
    "google.adk.evaluation.local_eval_service._evaluate_single_inference_result": "after the run",
    "google.adk.utils.cache_performance_analyzer._get_agent_cache_history": "reads a conversation",
    "google.adk.utils.cache_performance_analyzer.analyze_agent_cache_performance": "as before",
}

MAKES_NEW = {
    "google.adk.agents.mcp_instruction_provider.__call__": "a session of MCP",
    "google.adk.cli.api_server._create_session": "the route that creates",
    "google.adk.cli.cli.run_input_file": "with an id that the service chooses",
    "google.adk.cli.cli.run_cli": "with an id that the service chooses",
    "google.adk.cli.conformance.cli_record._create_conformance_test_files": "a client of a server",
    "google.adk.cli.conformance.cli_test._run_test_case_replay": "a client of a server",
    "google.adk.cli.utils.local_storage.create_session": "passes it on to services of ADK's own",
    "google.adk.labs.antigravity._sub_agent_tools.call": "in memory",
    "google.adk.tools.agent_tool.run_async": "with an id that the service chooses",
    "google.adk.tools.mcp_tool._agent_to_mcp._run_agent": "with an id that the service chooses",
    "google.adk.tools.mcp_tool.mcp_tool._create_session": "a session of MCP",
    "google.adk.tools.mcp_tool.mcp_toolset._execute_with_session": "a session of MCP",
}


def callers(method):
    """Return the functions of ADK that call a method, each as `module.name`."""
    root, found = Path(google.adk.__file__).parent, set()

    def visit(node, function):
        for child in ast.iter_child_nodes(node):
            inner = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = child.name
            called = child.func if isinstance(child, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr == method:
                found.add(f"{module}.{function}")
            visit(child, inner)

    for file in root.rglob("*.py"):
        module = ".".join(("google.adk", *file.relative_to(root).with_suffix("").parts))
        visit(ast.parse(file.read_text("utf-8")), "")
    return found


def test_every_function_of_adk_that_reads_a_session_is_decided():
    """Fails with a new version of ADK that adds, moves or renames one: decide what it is.

    Broken on purpose: without `run_debug` in LOOKS_BEFORE_A_RUN, it names `run_debug`.
    """
    assert callers("get_session") == private.LOOKS_BEFORE_A_RUN | READS_OTHERWISE.keys()


def test_every_function_of_adk_that_creates_a_session_reads_first_or_makes_a_new_one():
    """Fails with a new version of ADK in which something else gets or creates a session."""
    unread = callers("create_session") - private.LOOKS_BEFORE_A_RUN
    assert unread == MAKES_NEW.keys()
