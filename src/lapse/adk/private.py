"""Names that ADK and FastAPI do not promise to keep: each stands here, once, behind a function.

Some are private by their underscore, others stand in modules that no documentation names.
Everybody else in Lapse calls these functions. `tests/adk/test_adk_private.py` says of each name
what it is for, and fails with that sentence when a new version has moved it.

Nothing here imports ADK before it is called.
"""

# ruff: noqa: SLF001 - it is what this module is for

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.routing import APIRoute
    from google.adk.agents.base_agent import BaseAgent
    from google.adk.apps.app import App
    from google.adk.artifacts.base_artifact_service import BaseArtifactService
    from google.adk.cli.api_server import RunAgentRequest as RunAgentRequest  # noqa: PLC0414
    from google.adk.cli.utils.base_agent_loader import BaseAgentLoader
    from google.adk.events.event import Event
    from google.adk.runners import Runner
    from google.adk.sessions.base_session_service import BaseSessionService
    from google.adk.sessions.session import Session

# Sessions.


def marker_of(session: Session) -> str | None:
    """Return the mark of the version at which a session object was read; None where it has none.

    ADK's own database services keep theirs in the same place.
    """
    return session._storage_update_marker


def set_marker(session: Session, marker: str) -> None:
    """Mark a session object with the version that it now is."""
    session._storage_update_marker = marker


def apply_temporary_state(service: BaseSessionService, session: Session, event: Event) -> None:
    """Put an event's `temp:` state into a session object, for the rest of the invocation."""
    service._apply_temp_state(session, event)


def without_temporary_state(service: BaseSessionService, event: Event) -> Event:
    """Return an event without its `temp:` state, which is never stored."""
    return service._trim_temp_delta_state(event)


def add_to_session(service: BaseSessionService, session: Session, event: Event) -> Event:
    """Add a stored event, and the state it changes, to the session object; return the event."""
    return service._commit_event_to_session(session, event)


# What ADK's server sends and takes.


def public_fields(event: Event) -> dict[str, Any]:
    """Return an event as ADK's server sends it: without what is ADK's own, secrets blacked out."""
    from google.adk.auth.auth_credential import _redact_credential_secrets
    from google.adk.events._internal_metadata import public_event

    fields = public_event(event).model_dump(exclude_none=True, by_alias=True, mode="json")
    redacted: dict[str, Any] = _redact_credential_secrets(fields)
    return redacted


def run_request(fields: Mapping[str, Any]) -> RunAgentRequest:
    """Return the body of a `/run_sse` as ADK's server reads it.

    Raises:
        pydantic.ValidationError: ADK would not accept it.
        UnreadableBodyError: ADK would fail over it.
    """
    from google.adk.cli.api_server import RunAgentRequest
    from pydantic import ValidationError

    from lapse.adk.errors import MODEL_FAULTS, UnreadableBodyError

    try:
        return RunAgentRequest.model_validate(fields)
    except ValidationError:
        raise
    except MODEL_FAULTS as error:
        raise UnreadableBodyError("the body could not be validated") from error


# ADK's server.


def app_of_runners(runners: Iterable[Runner], service: BaseSessionService) -> FastAPI:
    """Return ADK's server for runners that exist already, each for its own app.

    It loads no agents: an app without a runner answers 404.
    """
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

    class ServerOfRunners(ApiServer):
        async def get_runner_async(self, app_name: str) -> Runner:
            if app_name not in given:
                raise HTTPException(404, f"App not found: {app_name}")
            return given[app_name]

    server = ServerOfRunners(
        agent_loader=None,  # type: ignore[arg-type]  # the runners are given
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
) -> FastAPI:
    """Return ADK's server for a folder of agents.

    Args:
        folder: the agents, as `adk api_server` takes them.
        sessions: the session service that the agents run on.
        artifacts: makes the artifact service for the folder that ADK takes for that of the
            agents: `folder`, or its parent where `folder` is an agent itself. Called once.
        host: the address at which it will be served; ADK's checks of Host and Origin go by it.
        port: the port at which it will be served.
        web: with ADK's developer UI.
        allow_origins: the origins of pages that may call.
    """
    from google.adk.cli.fast_api import get_fast_api_app
    from google.adk.cli.service_registry import get_service_registry

    # ADK takes its services by URI only; a factory may return a ready one.
    def ready_sessions(uri: str, **_: Any) -> BaseSessionService:  # noqa: ARG001 - ADK's signature
        return sessions

    def made_artifacts(uri: str, **options: Any) -> BaseArtifactService:  # noqa: ARG001 - as above
        return artifacts(Path(options["agents_dir"]))

    scheme = f"lapse-{uuid.uuid4().hex}"
    get_service_registry().register_session_service(scheme, ready_sessions)
    get_service_registry().register_artifact_service(scheme, made_artifacts)
    return get_fast_api_app(
        agents_dir=str(folder),
        agent_loader=agent_loader(folder, web=web),
        session_service_uri=f"{scheme}://",
        artifact_service_uri=f"{scheme}://",
        allow_origins=list(allow_origins) or None,
        web=web,
        bind_host=host,
        host=host,
        port=port,
    )


def artifact_service(folder: Path, uri: str | None) -> BaseArtifactService:
    """Return ADK's artifact service of a URI; without one, that of files beside each agent.

    Raises:
        ValueError: ADK knows no such service.
    """
    from google.adk.cli.utils.service_factory import create_artifact_service_from_options

    return create_artifact_service_from_options(
        base_dir=folder, artifact_service_uri=uri, strict_uri=True
    )


def agent_loader(folder: Path, *, web: bool) -> BaseAgentLoader:
    """Return the loader that ADK's server would choose, whose refusals are errors of Lapse's.

    Where ADK's loader raises a ValueError, which says that there is no agent of this name, this
    one raises NoSuchAgentError, which names no folder of the server. ADK's own routes answer 404
    to both, its developer routes to neither.
    """
    from google.adk.cli.utils._nested_agent_loader import NestedAgentLoader
    from google.adk.cli.utils.agent_loader import AgentLoader

    from lapse.adk.errors import NoSuchAgentError, without_paths

    chosen: type[AgentLoader] = NestedAgentLoader if web else AgentLoader

    class Loader(chosen):  # type: ignore[misc, valid-type]
        def load_agent(self, agent_name: str) -> BaseAgent | App:
            try:
                loaded: BaseAgent | App = super().load_agent(agent_name)
            except ValueError as error:
                raise NoSuchAgentError(without_paths(str(error))) from error
            return loaded

    loader: BaseAgentLoader = Loader(str(folder))
    return loader


# FastAPI's routes.


def before_endpoint(route: APIRoute, hear: Callable[[], None]) -> None:
    """Have `hear` called for each request whose parameters and body a route has validated.

    It is called directly before the route's endpoint, where that runs: in a thread if it is no
    coroutine. FastAPI has no hook there; what instruments applications wraps the same attribute,
    and FastAPI reckons with that.
    """
    call = route.dependant.call
    assert call is not None, "a route has an endpoint"

    @wraps(call)
    def heard(*args: Any, **kwargs: Any) -> Any:
        hear()
        return call(*args, **kwargs)

    route.dependant.call = heard
