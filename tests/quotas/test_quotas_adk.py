"""Quotas on ADK's own server, which creates sessions for runs."""

from __future__ import annotations

import httpx
import pytest
from google.adk.artifacts.in_memory_artifact_service import InMemoryArtifactService
from google.adk.auth.credential_service.in_memory_credential_service import (
    InMemoryCredentialService,
)
from google.adk.cli.api_server import ApiServer
from google.adk.evaluation.in_memory_eval_sets_manager import InMemoryEvalSetsManager
from google.adk.evaluation.local_eval_set_results_manager import LocalEvalSetResultsManager
from google.adk.memory.in_memory_memory_service import InMemoryMemoryService
from google.adk.runners import Runner

from adk_builders import APP, USER
from lapse import LapseSessionService, mount
from lapse.demo.agents.concierge.agent import root_agent
from lapse.quotas.rules import Quotas
from parts import store_with_parts


class Creating(ApiServer):
    """ADK's server for one agent, told to create the sessions of its runs."""

    async def get_runner_async(self, app_name):
        return Runner(
            app_name=app_name,
            agent=root_agent,
            session_service=self.session_service,
            auto_create_session=True,
        )


@pytest.fixture
async def client(tmp_path):
    """A client of ADK's server that creates sessions for runs, one a minute for each user."""
    store = store_with_parts("sqlite:///:memory:")
    service = LapseSessionService(store, quotas=Quotas(creates_per_user=1))
    app = Creating(
        agent_loader=None,
        session_service=service,
        memory_service=InMemoryMemoryService(),
        artifact_service=InMemoryArtifactService(),
        credential_service=InMemoryCredentialService(),
        eval_sets_manager=InMemoryEvalSetsManager(),
        eval_set_results_manager=LocalEvalSetResultsManager(agents_dir=str(tmp_path)),
        agents_dir=str(tmp_path),
        auto_create_session=True,
    ).get_fast_api_app()
    mount(app, service, apps=[APP])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client
    await service.close()


async def run(client, path, session_id):
    body = {
        "appName": APP,
        "userId": USER,
        "sessionId": session_id,
        "newMessage": {"role": "user", "parts": [{"text": "hello"}]},
    }
    return await client.post(path, json=body)


async def test_a_run_that_creates_its_session_is_limited(client):
    assert (await run(client, "/run", "s1")).status_code == 200
    assert (await run(client, "/run", "s1")).status_code == 200
    refused = await run(client, "/run", "s2")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    listed = await client.get(f"/apps/{APP}/users/{USER}/sessions")
    assert [session["id"] for session in listed.json()] == ["s1"]


async def test_a_stream_that_may_not_create_its_session_ends_with_an_error_event(client):
    """ADK has sent the head of the answer by then."""
    assert "error" not in (await run(client, "/run_sse", "s1")).text
    refused = await run(client, "/run_sse", "s2")
    assert '"error_type": "TooManyCreatesError"' in refused.text
    listed = await client.get(f"/apps/{APP}/users/{USER}/sessions")
    assert [session["id"] for session in listed.json()] == ["s1"]
