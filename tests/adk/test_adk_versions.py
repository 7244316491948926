"""What the installed ADK lacks is refused in a sentence, and nothing is refused that it has."""

from __future__ import annotations

from importlib.metadata import version

import httpx
import pytest
from google.adk.artifacts.in_memory_artifact_service import InMemoryArtifactService
from google.adk.runners import Runner
from google.adk.sessions.database_session_service import DatabaseSessionService
from ways_in import agent

from adk_builders import APP, USER, create_session, get_session, message_event, texts
from adk_versions import ADK, is_before
from lapse import LapseSessionService, mount
from lapse.adk.conversing import ConversingSessionService
from lapse.adk.errors import StaleSessionError
from lapse.adk.private.loaders import own_agents, serves_one_agent
from lapse.adk.private.servers import (
    app_of_agents,
    app_of_runners,
    server_arguments,
    server_of,
)
from lapse.adk.private.versions import SINCE, is_there
from lapse.adk.private.wire import error_in
from lapse.adk.server import adk_arguments, check_folder
from lapse.adk.server_options import ServerOptions
from lapse.core.errors import InvalidValueError
from parts import store_with_parts
from serving import AGENTS

OIDC = {"trigger_oidc_audience": "https://x.example"}
ASKED = {
    "task_store_uri": {"task_store_uri": "memory://", "a2a": True},
    "trigger_sources": {"trigger_sources": ("pubsub",), **OIDC},
    "trigger_oidc_audience": OIDC,
    "trigger_oidc_service_accounts": {"trigger_oidc_service_accounts": ("a@b.example",), **OIDC},
    "avatar_config": {"avatar_config": "{}"},
    "max_llm_calls": {"max_llm_calls": 3},
    "gemini_enterprise_app_name": {"gemini_enterprise_app_name": "shop"},
    "express_mode": {"express_mode": True, "gemini_enterprise_app_name": "shop"},
}
"""Options that not every version has, each with what it needs."""
INTEGRATIONS = ("firestore", "redis", "openai")
"""Those whose module came with what Lapse uses of it; mongodb's is older than its sessions."""
FOLDER = "a folder that is itself an agent"


def test_every_option_that_came_later_is_among_these():
    modules = {name for name in SINCE if name.startswith("google.")}
    assert SINCE.keys() - modules - {FOLDER} == ASKED.keys()


@pytest.mark.parametrize("name", ASKED)
def test_an_option_is_passed_on_since_the_version_that_has_it(name):
    """Seen to fail with a wrong version in SINCE."""
    assert (name in server_arguments()) is not is_before(SINCE[name])
    lacking = [one for one in ASKED[name] if is_before(SINCE.get(one, "0"))]
    options = ServerOptions(**ASKED[name])
    if not lacking:
        assert adk_arguments(options)[name]
        return
    with pytest.raises(InvalidValueError) as refused:
        adk_arguments(options)
    field = refused.value.field
    assert field in lacking
    assert refused.value.reason.startswith(f"needs google-adk {SINCE[field]} or newer; ")


@pytest.mark.parametrize("name", [f"google.adk.integrations.{name}" for name in INTEGRATIONS])
def test_a_module_is_there_since_the_version_that_has_it(name):
    assert is_there(name) is not is_before(SINCE[name])


def test_an_agent_is_served_as_a_folder_of_its_own_since_the_version_that_does(tmp_path):
    (tmp_path / "agent.py").write_text("")
    assert serves_one_agent() is not is_before(SINCE[FOLDER])
    if serves_one_agent():
        check_folder(tmp_path)
        return
    with pytest.raises(InvalidValueError, match=r"agents_dir: .* needs google-adk 2\.1 or newer"):
        check_folder(tmp_path)


def test_an_older_adk_is_named_with_the_version_that_is_needed(monkeypatch):
    """Seen to fail with options that are missing dropped without a word."""
    monkeypatch.setattr(
        "lapse.adk.server.server_arguments", lambda: server_arguments() - {"max_llm_calls"}
    )
    assert "max_llm_calls" not in adk_arguments(ServerOptions())
    with pytest.raises(InvalidValueError) as refused:
        adk_arguments(ServerOptions(max_llm_calls=1))
    told = f"needs google-adk 2.11 or newer; {version('google-adk')} is installed"
    assert str(refused.value) == f"max_llm_calls: {told}"


def test_an_error_in_a_stream_is_one_with_and_without_details():
    """Seen to fail with an error known by its details only, as ADK tells it since 2.4."""
    told = error_in({"error": "it broke"})
    assert told is not None
    assert told["error_details"]["error_message"] == "it broke"
    known = {"error": "E: it broke", "error_details": {"error_type": "E"}}
    assert error_in(known) is known
    assert error_in({"id": "e-1", "author": "agent"}) is None


async def test_an_outdated_session_of_another_service_is_told_as_such(tmp_path):
    """Seen to fail without `stale_as_such`, on ADK 1.28: it is a plain ValueError."""
    stock = DatabaseSessionService(f"sqlite+aiosqlite:///{tmp_path}/adk.db")
    store = store_with_parts(f"sqlite:///{tmp_path}/lobby.db")
    async with ConversingSessionService(store, stock) as service:
        session = await create_session(service)
        await service.append_event(session, message_event("one", timestamp=1000.0))
        first, second = [await get_session(service, session.id) for _ in range(2)]
        await service.append_event(first, message_event("two", timestamp=1001.0))
        with pytest.raises(StaleSessionError):
            await service.append_event(second, message_event("lost", timestamp=1002.0))
        assert texts(await get_session(service, session.id)) == ["one", "two"]


async def test_the_options_of_a_request_reach_the_service_whatever_adk_passes_on(tmp_path):
    """Seen to fail without `pass_options`, on ADK 1.28: the session has the usual TTL."""
    service = LapseSessionService(store_with_parts(f"sqlite:///{tmp_path}/lapse.db"))
    server = app_of_runners([Runner(app_name=APP, agent=agent(), session_service=service)], service)
    mount(server, service, apps=[APP])
    transport = httpx.ASGITransport(app=server)
    async with (
        server.router.lifespan_context(server),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        path = f"/apps/{APP}/users/{USER}/sessions"
        asked = {"sessionId": "s", "options": {"ttl_minutes": 5, "metadata": {"page": "home"}}}
        assert (await client.post(path, json=asked)).status_code == 200
        told = (await client.get(f"{path}/s/lifecycle")).json()
        assert (told["ttlMinutes"], told["metadata"]["page"]) == (5, "home")
        wrong = await client.post(path, json={"options": {"ttl_minutes": -1}})
        assert (wrong.status_code, wrong.json()["detail"][:11]) == (400, "ttl_minutes")
        plain = (await client.post(path, json={"sessionId": "plain"})).json()
        told = (await client.get(f"{path}/{plain['id']}/lifecycle")).json()
        assert told["ttlMinutes"] == 30


def test_adks_own_agents_are_served_to_this_machine_alone_whatever_adk_allows(tmp_path):
    """Seen to fail on ADK 2.8 with its loader left as it is: it loads them for everybody."""
    for host in ("127.0.0.1", "0.0.0.0"):
        service = LapseSessionService(store_with_parts(f"sqlite:///{tmp_path}/lapse.db"))
        app = app_of_agents(
            AGENTS,
            sessions=service,
            artifacts=lambda _: InMemoryArtifactService(),
            host=host,
            port=8000,
            web=True,
            allow_origins=(),
            options={},
        )
        own = own_agents(server_of(app).agent_loader)
        knows_them = not is_before("2.5") or ADK.base_version == "1.39.1"
        assert bool(own) is (host == "127.0.0.1" and knows_them)
