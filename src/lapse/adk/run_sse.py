"""How runs get at ADK: its own `/run_sse`, called without a connection.

What a run sends is what ADK's endpoint sends, to the byte, because it is that endpoint that
writes it: its runners, its checks, its errors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from google.adk.cli.api_server import RunAgentRequest
    from google.adk.runners import Runner

    from lapse.adk.service import LapseSessionService

Chunks = AsyncIterator[str | bytes | memoryview]
Opener = Callable[["RunAgentRequest"], Awaitable[Chunks]]
"""Takes the body of a `/run_sse`; returns what it would send, which runs as it is iterated."""


def opener_of(app: FastAPI) -> Opener | None:
    """Return the opener of an application that has ADK's `/run_sse`; None for any other."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path == "/run_sse":
            return _opener(route.endpoint)
    return None


def opener_for(runners: Iterable[Runner], service: LapseSessionService) -> Opener:
    """Return an opener that has ADK's server run these runners, each for its own app."""
    from google.adk.artifacts.in_memory_artifact_service import InMemoryArtifactService
    from google.adk.auth.credential_service.in_memory_credential_service import (
        InMemoryCredentialService,
    )
    from google.adk.cli.api_server import ApiServer
    from google.adk.evaluation.in_memory_eval_sets_manager import InMemoryEvalSetsManager
    from google.adk.evaluation.local_eval_set_results_manager import LocalEvalSetResultsManager
    from google.adk.memory.in_memory_memory_service import InMemoryMemoryService
    from starlette.exceptions import HTTPException

    given = {runner.app_name: runner for runner in runners}

    class Given(ApiServer):
        """ADK's server for runners that are there already: it loads no agents."""

        async def get_runner_async(self, app_name: str) -> Runner:
            if app_name not in given:
                raise HTTPException(404, f"App not found: {app_name}")
            return given[app_name]

    server = Given(
        agent_loader=None,  # type: ignore[arg-type]  # the runners are given
        session_service=service,
        memory_service=InMemoryMemoryService(),
        artifact_service=InMemoryArtifactService(),
        credential_service=InMemoryCredentialService(),
        eval_sets_manager=InMemoryEvalSetsManager(),
        eval_set_results_manager=LocalEvalSetResultsManager(agents_dir="."),
        agents_dir=".",
    )
    opener = opener_of(server.get_fast_api_app())
    assert opener is not None, "ADK's server has a /run_sse"
    return opener


def _opener(endpoint: Callable[..., Awaitable[StreamingResponse]]) -> Opener:
    async def open_chunks(asked: RunAgentRequest) -> Chunks:
        response = await endpoint(asked)
        return aiter(response.body_iterator)

    return open_chunks
