"""Functions around names of ADK that a new version may move or remove.

Some of the names begin with an underscore, the others stand in modules that ADK's documentation
does not mention. No other module of Lapse uses such a name. `tests/adk/test_adk_private.py` says
what each name is for and fails with that sentence if a new version has moved it.

Importing this module does not import ADK; each function imports what it needs.
"""

# ruff: noqa: SLF001 - this module exists to use private names

from __future__ import annotations

import inspect
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fastapi import FastAPI
    from google.adk.agents.base_agent import BaseAgent
    from google.adk.apps.app import App
    from google.adk.artifacts.base_artifact_service import BaseArtifactService
    from google.adk.cli.api_server import ApiServer
    from google.adk.cli.api_server import RunAgentRequest as RunAgentRequest  # noqa: PLC0414
    from google.adk.cli.utils.base_agent_loader import BaseAgentLoader
    from google.adk.events.event import Event
    from google.adk.runners import Runner
    from google.adk.sessions.base_session_service import BaseSessionService
    from google.adk.sessions.session import Session
    from starlette.responses import Response

API_SERVER: Final = "google.adk.cli.api_server"
"""The module of ADK's routes and of the layers around them."""

COMPARED: Final = frozenset({"2.13.0"})
"""The versions of ADK for which `web/lean.py` was compared with ADK's own way."""


# Sessions.


def marker_of(session: Session) -> str | None:
    """Return the marker of the version at which a session object was read, or None without one.

    ADK's DatabaseSessionService keeps its own markers in the same attribute.
    """
    return session._storage_update_marker


def set_marker(session: Session, marker: str) -> None:
    """Set the marker of a session object to its present version."""
    session._storage_update_marker = marker


def apply_temporary_state(service: BaseSessionService, session: Session, event: Event) -> None:
    """Apply an event's `temp:` state to a session object, for the rest of the invocation."""
    service._apply_temp_state(session, event)


def without_temporary_state(service: BaseSessionService, event: Event) -> Event:
    """Return an event without its `temp:` state, which is never stored."""
    return service._trim_temp_delta_state(event)


def add_to_session(service: BaseSessionService, session: Session, event: Event) -> Event:
    """Add a stored event, and the state it changes, to the session object; return the event."""
    return service._commit_event_to_session(session, event)


# Who asks for a session.

LOOKS_BEFORE_A_RUN: Final = frozenset(
    {
        "google.adk.runners._get_or_create_session",
        "google.adk.runners.run_debug",
        "google.adk.cli.api_server.run_agent_sse",
        "google.adk.cli.trigger_routes._run_agent",
        "google.adk.cli.cli.run_once_cli",
        "google.adk.a2a.executor.a2a_agent_executor._prepare_session",
        "google.adk.a2a.executor.a2a_agent_executor_impl._resolve_session",
        "google.adk.integrations.livekit._livekit_runner._ensure_session",
        "google.adk.evaluation.evaluation_generator._get_or_create_eval_session",
    }
)
"""The functions of ADK, by module and name, that read a session to run an agent on it at once.

Where they find none they create one or refuse the run.
"""


def is_look_before_a_run() -> bool:
    """Return whether a function of ADK that is about to run an agent waits for the caller.

    ADK tells a session service what it asks for, and not why. So this looks for the innermost
    function of ADK on the stack, past a service that somebody has put around ours. What an agent or
    a tool reads during its run is asked by other functions of ADK. If the caller runs in a task of
    its own, the stack ends there, and the answer is False.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("google.adk."):
            return f"{module}.{frame.f_code.co_name}" in LOOKS_BEFORE_A_RUN
        frame = frame.f_back
    return False


# What ADK's server sends and takes.


def public_fields(event: Event) -> dict[str, Any]:
    """Return an event as ADK's server sends it: without internal fields, with secrets redacted."""
    from google.adk.auth.auth_credential import _redact_credential_secrets
    from google.adk.events._internal_metadata import public_event

    fields = public_event(event).model_dump(exclude_none=True, by_alias=True, mode="json")
    redacted: dict[str, Any] = _redact_credential_secrets(fields)
    return redacted


def public_fields_of_session(session: Session) -> dict[str, Any]:
    """Return a session as ADK's server sends it; see `public_fields`."""
    from google.adk.auth.auth_credential import _redact_credential_secrets
    from google.adk.events._internal_metadata import public_session

    fields = public_session(session).model_dump(exclude_none=True, by_alias=True, mode="json")
    redacted: dict[str, Any] = _redact_credential_secrets(fields)
    return redacted


def answer_sessions_with(respond: Callable[[Session | list[Session]], Response]) -> None:
    """Have ADK's routes make their answers with sessions by this function, in the whole process.

    Nothing happens where ADK's server is not loaded.
    """
    server = sys.modules.get(API_SERVER)
    if server is not None:
        server._redacted_session_response = respond  # type: ignore[attr-defined]


def run_request(fields: Mapping[str, Any]) -> RunAgentRequest:
    """Return the body of a `/run_sse` as ADK's server reads it.

    Raises:
        pydantic.ValidationError: the body is not valid.
        UnreadableBodyError: ADK's validation crashed.
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


def live_state(text: str) -> Mapping[str, Any]:
    """Return the change of state in a message to `/run_live`, as ADK's server reads it.

    Empty where there is none, or no message.
    """
    from google.adk.agents.live_request_queue import LiveRequest
    from pydantic import ValidationError

    from lapse.adk.errors import MODEL_FAULTS

    try:
        return LiveRequest.model_validate_json(text).state_delta or {}
    except (ValidationError, *MODEL_FAULTS):
        return {}  # ADK reads no further, either


# ADK's server.


def app_of_runners(runners: Iterable[Runner], service: BaseSessionService) -> FastAPI:
    """Return ADK's server for existing runners, each of which serves the app it names.

    The server loads no agents; it answers 404 for an app without a runner.
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
        options: further arguments of ADK's function, by name.
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
        **options,
    )


def server_of(app: FastAPI) -> ApiServer | None:
    """Return the server of ADK's that made an application's routes; None if it has none of them.

    The routes are closures of a method of the server, which they know as `self`.
    """
    for route in app.routes:
        if getattr(route, "path", None) == "/list-apps" and hasattr(route, "endpoint"):
            from google.adk.cli.api_server import ApiServer

            server = inspect.getclosurevars(route.endpoint).nonlocals.get("self")
            return server if isinstance(server, ApiServer) else None
    return None


def is_compared() -> bool:
    """Return whether ADK's version is one of COMPARED."""
    from google.adk import version

    return version.__version__ in COMPARED


def is_layer_of_server(cls: object) -> bool:
    """Return whether a class is one of the layers of ADK's server that answer no plain request.

    One checks Host and Origin; see `host_check`. The other one changes paths that name no app.
    """
    server = sys.modules.get(API_SERVER)
    return server is not None and cls in {
        server._OriginCheckMiddleware,
        server._DefaultAppRewriteMiddleware,
    }


def host_check(app: FastAPI) -> Callable[[bytes], bool]:
    """Return what says whether ADK's server refuses a `Host`, for an application that it made."""
    from google.adk.cli.api_server import (
        _get_allowed_request_hosts,
        _is_dns_rebinding_request,
        _OriginCheckMiddleware,
    )

    check: object = _OriginCheckMiddleware
    options: Mapping[str, Any] = next(
        (layer.kwargs for layer in app.user_middleware if layer.cls is check), {}
    )
    allowed = _get_allowed_request_hosts(options.get("allowed_origins", []))

    @lru_cache(maxsize=256)
    def is_refused(host: bytes) -> bool:
        scope = {"headers": [(b"host", host)]}
        return _is_dns_rebinding_request(scope, options.get("bind_host"), allowed)

    return is_refused


def own_agents(loader: BaseAgentLoader) -> frozenset[str]:
    """Return the names of ADK's own agents (`__…`) that a loader may load, as ADK has set it.

    One of them reads and writes files of the server.
    """
    if not loader._allow_special_agents:
        return frozenset()
    from google.adk.cli.utils.agent_loader import SPECIAL_AGENTS_DIR

    modules = Path(SPECIAL_AGENTS_DIR).glob("*.py")
    return frozenset(f"__{module.stem}" for module in modules if module.stem != "__init__")


def artifact_service(
    folder: Path, uri: str | None, *, use_local_storage: bool
) -> BaseArtifactService:
    """Return ADK's artifact service for a URI.

    Without one, it keeps files in the folder of each agent, or in memory if it may not or cannot.

    Raises:
        ValueError: ADK has no artifact service for this URI.
    """
    from google.adk.cli.utils.service_factory import create_artifact_service_from_options

    return create_artifact_service_from_options(
        base_dir=folder,
        artifact_service_uri=uri,
        strict_uri=True,
        use_local_storage=use_local_storage,
    )


def agent_loader(folder: Path, *, web: bool) -> BaseAgentLoader:
    """Return the loader that ADK's server would choose, except for its error.

    For an agent that does not exist ADK's loader raises a ValueError that names folders of the
    server; this loader raises NoSuchAgentError, which names none. ADK's run routes answer 404 to
    either error, and its developer routes handle neither.

    It loads the agents that it lists, and ADK's own agents if ADK allows that. ADK's loader
    imports any module that has the name of a folder or a file among the agents.
    """
    from google.adk.cli.utils._nested_agent_loader import NestedAgentLoader
    from google.adk.cli.utils.agent_loader import AgentLoader

    from lapse.adk.errors import NoSuchAgentError, without_paths

    chosen: type[AgentLoader] = NestedAgentLoader if web else AgentLoader

    class Loader(chosen):  # type: ignore[misc, valid-type]
        def load_agent(self, agent_name: str) -> BaseAgent | App:
            if not agent_name.startswith("__") and agent_name not in self.list_agents():
                raise NoSuchAgentError(f"Agent not found: {agent_name!r}.")
            try:
                loaded: BaseAgent | App = super().load_agent(agent_name)
            except ValueError as error:
                raise NoSuchAgentError(without_paths(str(error))) from error
            return loaded

    loader: BaseAgentLoader = Loader(str(folder))
    return loader
