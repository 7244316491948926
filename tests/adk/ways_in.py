"""Every way in which ADK says something to a session: programs, triggers, evaluations and A2A."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from google.adk.agents import BaseAgent, LlmAgent
from google.adk.cli.service_registry import get_service_registry
from google.adk.cli.utils.base_agent_loader import BaseAgentLoader
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from adk_builders import APP, get_session
from adk_versions import is_before, since_adk


def words(text, role="user"):
    return types.Content(role=role, parts=[types.Part(text=text)])


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
        **({} if is_before("2.12") else {"session_state": {"fresh": True}}),
    )


BY_A_TRIGGER = pytest.param(by_a_trigger, marks=since_adk("1.29", "there are no triggers"))


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


_OLDER_A2A = since_adk("2.8", "A2A is of another version")
WAYS = [
    by_run_async,
    by_an_agent_without_a_model,
    pytest.param(by_a_workflow, marks=since_adk("2.0", "there are no workflows")),
    by_auto_create,
    by_run_debug,
    BY_A_TRIGGER,
    pytest.param(by_an_evaluation, marks=since_adk("2.6", "evaluations make a new session")),
    pytest.param(by_a2a, marks=_OLDER_A2A),
    pytest.param(by_the_newer_a2a, marks=_OLDER_A2A),
]
