"""ADK's look-ups before a run resurrect an expired session, and no other read does."""

from __future__ import annotations

import ast
import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import google.adk
import pytest
from google.adk.agents import LiveRequestQueue
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.runners import Runner
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from ways_in import (
    BY_A_TRIGGER,
    WAYS,
    NoLineError,
    agent,
    body_of,
    by_a_program_without_a_loop,
    by_auto_create,
    by_run_async,
    by_run_debug,
    server_on,
)

from adk_builders import APP, USER, create_session, get_session, status_of, texts
from adk_versions import since_adk
from lapse import LapseSessionService, Principal, Quotas
from lapse.adk.private.look_ups import LOOKS_BEFORE_A_RUN
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


@pytest.mark.parametrize("say", [by_run_async, by_run_debug, BY_A_TRIGGER])
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

# The same functions where older versions of ADK have them.

OLDER_LOOKS = {
    "google.adk.cli.api_server.run_agent_live",
    "google.adk.cli.adk_web_server.run_agent_live",
    "google.adk.cli.adk_web_server.run_agent_sse",
}

OLDER_READS = {
    "google.adk.cli.adk_web_server.get_session": "the route that shows a session",
    "google.adk.cli.adk_web_server.update_session": "the route that changes state",
    "google.adk.cli.adk_web_server.patch_memory": "remembers a conversation",
    "google.adk.cli.adk_web_server.add_session_to_eval_set": "copies a conversation",
    "google.adk.cli.adk_web_server.get_event_graph": "draws an event",
}

OLDER_MAKES_NEW = {
    "google.adk.cli.adk_web_server._create_session": "the route that creates",
    "google.adk.evaluation.evaluation_generator._generate_inferences_from_root_agent": "evaluates",
    "google.adk.evaluation.evaluation_generator._generate_inferences_from_root_agent_live": "so",
    "google.adk.tools.google_search_agent_tool.run_async": "in memory",
    "google.adk.tools.mcp_tool.mcp_tool._run_async_impl": "a session of MCP",
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
    decided = LOOKS_BEFORE_A_RUN | READS_OTHERWISE.keys()
    assert callers("get_session") <= decided | OLDER_READS.keys()


@since_adk("2.13", "functions that Lapse decides about came by and by")
def test_no_function_that_reads_a_session_has_gone_since_it_was_decided():
    decided = LOOKS_BEFORE_A_RUN | READS_OTHERWISE.keys()
    assert decided - callers("get_session") == OLDER_LOOKS


def test_every_function_of_adk_that_creates_a_session_reads_first_or_makes_a_new_one():
    """Fails with a new version of ADK in which something else gets or creates a session."""
    unread = callers("create_session") - LOOKS_BEFORE_A_RUN
    assert unread <= MAKES_NEW.keys() | OLDER_MAKES_NEW.keys()
