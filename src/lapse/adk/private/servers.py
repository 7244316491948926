"""Makes ADK's server, and finds it behind the routes of an application."""

# ruff: noqa: SLF001 - this module exists to use private names

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapse.adk.private.loaders import agent_loader
from lapse.adk.private.versions import server_module
from lapse.auth.addresses import is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI
    from google.adk.artifacts.base_artifact_service import BaseArtifactService
    from google.adk.cli.api_server import ApiServer as ApiServer  # noqa: PLC0414
    from google.adk.runners import Runner
    from google.adk.sessions.base_session_service import BaseSessionService


def app_of_runners(runners: Iterable[Runner], service: BaseSessionService) -> FastAPI:
    """Return ADK's server for existing runners; it answers 404 for an app that none names."""
    from google.adk.artifacts.in_memory_artifact_service import InMemoryArtifactService
    from google.adk.auth.credential_service.in_memory_credential_service import (
        InMemoryCredentialService,
    )
    from google.adk.evaluation.in_memory_eval_sets_manager import InMemoryEvalSetsManager
    from google.adk.evaluation.local_eval_set_results_manager import LocalEvalSetResultsManager
    from google.adk.memory.in_memory_memory_service import InMemoryMemoryService
    from starlette.exceptions import HTTPException

    given = {runner.app_name: runner for runner in runners}

    class ServerOfRunners(_server_class()):  # type: ignore[misc]
        async def get_runner_async(self, app_name: str) -> Runner:
            if app_name not in given:
                raise HTTPException(404, f"App not found: {app_name}")
            return given[app_name]

    server: ApiServer = ServerOfRunners(
        agent_loader=None,  # the runners are given
        session_service=service,
        memory_service=InMemoryMemoryService(),
        artifact_service=InMemoryArtifactService(),
        credential_service=InMemoryCredentialService(),
        eval_sets_manager=InMemoryEvalSetsManager(),
        eval_set_results_manager=LocalEvalSetResultsManager(agents_dir="."),
        agents_dir=".",
    )
    return server.get_fast_api_app()


def app_of_agents(
    folder: Path,
    *,
    sessions: BaseSessionService,
    artifacts: Callable[[Path], BaseArtifactService],
    host: str,
    port: int,
    web: bool,
    allow_origins: Sequence[str],
    options: Mapping[str, Any],
) -> FastAPI:
    """Return ADK's server for a folder of agents.

    Args:
        folder: the folder of agents, as for `adk api_server`.
        sessions: the session service of the agents.
        artifacts: makes the artifact service. It is called once, with the folder that ADK treats
            as the folder of agents: `folder`, or its parent if `folder` itself is an agent.
        host: the address of the server; ADK compares the headers Host and Origin with it.
        port: the port of the server.
        web: whether to serve ADK's developer UI.
        allow_origins: the origins whose pages may call the server (CORS).
        options: further arguments of ADK's function, by name; see `server_arguments`.
    """
    from google.adk.cli.fast_api import get_fast_api_app
    from google.adk.cli.service_registry import get_service_registry

    # ADK accepts services only as URIs, so these factories return the given ones.
    def ready_sessions(uri: str, **_: Any) -> BaseSessionService:  # noqa: ARG001 - ADK's signature
        return sessions

    def made_artifacts(uri: str, **options: Any) -> BaseArtifactService:  # noqa: ARG001 - as above
        return artifacts(Path(options["agents_dir"]))

    scheme = f"lapse-{uuid.uuid4().hex}"
    get_service_registry().register_session_service(scheme, ready_sessions)
    get_service_registry().register_artifact_service(scheme, made_artifacts)
    # Since 2.7, and in 1.39.1, the server compares the header Host with the address.
    bound: dict[str, Any] = {"bind_host": host} if "bind_host" in server_arguments() else {}
    loader = agent_loader(folder, web=web)
    app = get_fast_api_app(
        agents_dir=str(folder),
        agent_loader=loader,
        session_service_uri=f"{scheme}://",
        artifact_service_uri=f"{scheme}://",
        allow_origins=list(allow_origins) or None,
        web=web,
        host=host,
        port=port,
        **bound,
        **options,
    )
    if not is_loopback(host):
        # Since 2.12 ADK does so itself: one of its own agents writes files of the server.
        loader._allow_special_agents = False
    return app


@cache
def server_arguments() -> frozenset[str]:
    """Return the names of the arguments that ADK's function for a server takes."""
    from google.adk.cli.fast_api import get_fast_api_app

    return frozenset(inspect.signature(get_fast_api_app).parameters)


def server_of(app: FastAPI) -> ApiServer | None:
    """Return the server of ADK's that made an application's routes; None if it has none of them.

    The routes are closures of a method of the server, which they know as `self`.
    """
    for route in app.routes:
        if getattr(route, "path", None) == "/list-apps" and hasattr(route, "endpoint"):
            server = inspect.getclosurevars(route.endpoint).nonlocals.get("self")
            return server if isinstance(server, _server_class()) else None
    return None


def default_app_of(server: ApiServer) -> str | None:
    """Return the app of requests that name none; before 2.0 each has to name one."""
    name: str | None = getattr(server, "default_app_name", None)
    return name


def _server_class() -> type[ApiServer]:
    """Return the class of ADK's server: since 2.0 `ApiServer`."""
    module = server_module()
    made: type[ApiServer] = getattr(module, "ApiServer", None) or module.AdkWebServer
    return made
