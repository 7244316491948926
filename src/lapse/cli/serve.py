"""`lapse serve`: serves ADK agents over HTTP, with their sessions in Lapse."""

from __future__ import annotations

import gc
import ipaddress
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lapse.cli import adk_options
from lapse.cli.command import VerboseOption, fail, open_settings, run_async

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from lapse.limits.rules import Bounds
    from lapse.settings import Settings

_GRACE: Final = timedelta(seconds=1)
"""How long open connections may take to end at shutdown."""

_OTHER_FILES: Final = 150
"""Open files of a server besides its connections: those of the store, the log and libraries."""

_KEEP_ALIVE: Final = timedelta(seconds=75)
"""Longer than the 60 s of common load balancers, so that the balancer closes a connection first."""


def serve(
    agents_dir: Annotated[
        Path | None,
        typer.Argument(help="A folder of ADK agents; by default the bundled demo agent."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", "--session-service-uri", metavar="URL", help="The store of the sessions."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on; 0 picks a free port.")
    ] = 8000,
    local_llm: Annotated[
        bool,
        typer.Option(
            "--local-llm", help="Run the demo on a small, slow language model on this machine."
        ),
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", "--with-ui", help="Also serve ADK's developer UI.")
    ] = False,
    allow_origins: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origins", help="An origin whose pages may call the server; repeatable."
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen beyond this machine without authentication."),
    ] = False,
    admin_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve the operators' pages on this port instead of --port."
        ),
    ] = None,
    admin_host: Annotated[
        str | None, typer.Option(help="The address of --admin-port.", show_default="127.0.0.1")
    ] = None,
    verbose: VerboseOption = False,
    log_level: adk_options.LogLevelOption = None,
    artifact_service_uri: adk_options.ArtifactUri = None,
    memory_service_uri: adk_options.MemoryUri = None,
    eval_storage_uri: adk_options.EvalUri = None,
    use_local_storage: adk_options.LocalStorage = None,
    a2a: adk_options.A2a = None,
    task_store_uri: adk_options.TaskUri = None,
    otel_to_cloud: adk_options.OtelToCloud = None,
    trace_to_cloud: adk_options.TraceToCloud = None,
    url_prefix: adk_options.UrlPrefix = None,
    extra_plugins: adk_options.Plugins = None,
    reload_agents: adk_options.ReloadAgents = None,
    auto_create_session: adk_options.AutoCreate = None,
    max_llm_calls: adk_options.MaxLlmCalls = None,
    trigger_sources: adk_options.TriggerSources = None,
    trigger_oidc_audience: adk_options.TriggerAudience = None,
    trigger_oidc_service_accounts: adk_options.TriggerAccounts = None,
    avatar_config: adk_options.Avatar = None,
    gemini_enterprise_app_name: adk_options.GeminiApp = None,
    express_mode: adk_options.ExpressMode = None,
    enable_features: adk_options.EnableFeatures = None,
    disable_features: adk_options.DisableFeatures = None,
    reload: adk_options.Reload = True,  # noqa: ARG001 - `adk api_server` has it
) -> None:
    """Serve ADK agents over HTTP, with their sessions in Lapse.

    It takes each option of `adk api_server`, with hyphens or with underscores.
    """
    from lapse.auth.options import AuthMode

    settings = open_settings(
        store,
        verbose=verbose,
        log_level=log_level,
        artifact_service_uri=artifact_service_uri,
        memory_service_uri=memory_service_uri,
        eval_storage_uri=eval_storage_uri,
        use_local_storage=use_local_storage,
        a2a=a2a,
        task_store_uri=task_store_uri,
        otel_to_cloud=otel_to_cloud,
        trace_to_cloud=trace_to_cloud,
        url_prefix=url_prefix,
        extra_plugins=adk_options.joined(extra_plugins),
        reload_agents=reload_agents,
        auto_create_session=auto_create_session,
        max_llm_calls=max_llm_calls,
        trigger_sources=trigger_sources,
        trigger_oidc_audience=trigger_oidc_audience,
        trigger_oidc_service_accounts=trigger_oidc_service_accounts,
        avatar_config=avatar_config,
        gemini_enterprise_app_name=gemini_enterprise_app_name,
        express_mode=express_mode,
        enable_features=adk_options.joined(enable_features),
        disable_features=adk_options.joined(disable_features),
    )
    if settings.auth is AuthMode.NONE and not insecure and not _is_loopback(host):
        fail(
            f"--host {host}: without authentication everybody who reaches this address could "
            "read every session; set LAPSE_AUTH (see docs/security.md), listen on 127.0.0.1, or "
            "give --insecure"
        )
    if settings.auth is not AuthMode.NONE:
        _check_origins(allow_origins or ())
    folder = _local_llm(agents_dir) if local_llm else _agents(agents_dir)
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port))
        operators = None
        admin_port = settings.admin_port if admin_port is None else admin_port
        if admin_port is not None:
            where = admin_host or settings.admin_host
            operators = stack.enter_context(_listen(where, admin_port, option="--admin-port"))
            if operators.getsockname()[1] == listener.getsockname()[1]:
                fail(f"--admin-port {admin_port}: must differ from --port")
        _serve(
            settings, folder, listener, operators, web=web, allow_origins=tuple(allow_origins or ())
        )


def _check_origins(origins: Sequence[str]) -> None:
    from lapse.auth.origins import check_origins
    from lapse.core.errors import InvalidValueError

    try:
        check_origins(origins)
    except InvalidValueError as error:
        fail(f"--allow-origins: {error.reason}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _agents(folder: Path | None) -> Path:
    from lapse.demo import AGENTS_DIR

    if folder is None:
        return AGENTS_DIR
    if not folder.is_dir():
        fail(f"{folder}: there is no such folder of agents")
    from lapse.adk.agents import has_agents

    if not has_agents(folder):
        fail(
            f"{folder}: holds no agents; ADK looks for FOLDER/NAME/agent.py with a root_agent, "
            "or FOLDER/NAME/root_agent.yaml"
        )
    return folder


def _local_llm(folder: Path | None) -> Path:
    from lapse.demo.local_llm import AGENTS_DIR, missing

    if folder is not None:
        fail("--local-llm runs its own demo agent; do not give a folder of agents")
    if ways := missing():
        fail(
            "--local-llm needs packages that are not installed: "
            + " && ".join(f"pip install {_quoted(way)}" for way in ways)
        )
    from lapse.demo.local_llm.model import server

    # Load the model now: ADK loads agents on the event loop, which would block all other requests.
    server()
    return AGENTS_DIR


def _quoted(arguments: str) -> str:
    return f"'{arguments}'" if "[" in arguments else arguments


def _listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        fail(f"cannot listen on {host}:{port}: {error.strerror}; choose another {option}")
    return listener


def _serve(
    settings: Settings,
    folder: Path,
    listener: socket.socket,
    operators: socket.socket | None,
    *,
    web: bool,
    allow_origins: tuple[str, ...],
) -> None:
    """Open the store, so that its errors come first, then serve until a signal comes."""
    # Imports create a quarter of a million objects and no garbage. Collecting during the imports
    # takes an eighth of the start; without `gc.freeze` below, each later full collection takes a
    # fifth of a second longer.
    gc.disable()
    from lapse.app import Lapse
    from lapse.auth import authentication_of

    authentication = authentication_of(settings.authentication, origins=allow_origins)
    lapse = Lapse(settings=settings, notes_artifacts=True)
    run_async(lapse.store.open())

    import uvicorn

    from lapse.dashboard.routes import OperatorsPortMiddleware
    from lapse.limits.protocol import bounded
    from lapse.notices.routes import NoticeStreamMiddleware
    from lapse.telemetry.provider import set_quiet_provider
    from lapse.web.middleware.telemetry import UnreadTelemetryMiddleware
    from lapse.web.server import BelowPrefix

    set_quiet_provider()
    host, port = listener.getsockname()[:2]
    operators_port: int | None = operators.getsockname()[1] if operators else None
    web_app = lapse.app(
        folder,
        web,
        host=host,
        port=port,
        allow_origins=allow_origins,
        admin_port=operators_port,
        authentication=authentication,
    )
    served: ASGIApp = UnreadTelemetryMiddleware(NoticeStreamMiddleware(web_app))
    announced = [f"Lapse serves {_described(folder)} on {_address(listener)}"]
    if operators is not None and operators_port is not None:
        served = OperatorsPortMiddleware(served, operators_port)
        announced.append(f"Operators' pages: {_address(operators)}/lapse/")
    elif settings.admin_token is not None:
        announced.append(f"Operators' pages: {_address(listener)}/lapse/")

    if web_app.root_path:
        served = BelowPrefix(served, web_app.root_path)

    class Server(uvicorn.Server):
        """Prints its addresses once it accepts connections, so that scripts can wait for that."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                typer.echo("\n".join(announced), err=True)

    server = Server(
        uvicorn.Config(
            served,
            http=bounded(_within_files(settings.bounds)),
            ws_max_size=settings.bounds.body,
            server_header=False,
            log_config=None,
            access_log=False,
            # Headers can be forged; uvicorn must report the socket's peer as the client.
            proxy_headers=False,
            timeout_graceful_shutdown=int(_GRACE.total_seconds()),
            timeout_keep_alive=int(_KEEP_ALIVE.total_seconds()),
        )
    )
    gc.freeze()
    gc.enable()
    server.run(sockets=[listener] if operators is None else [listener, operators])


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _within_files(bounds: Bounds) -> Bounds:
    """Return the bounds with at most as many connections as this process may open files.

    It raises the process's soft limit on open files, if that is too low and the hard limit allows.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = bounds.connections + _OTHER_FILES
    if soft < wanted:
        soft = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return replace(bounds, connections=max(1, min(bounds.connections, soft - _OTHER_FILES)))


def _described(folder: Path) -> str:
    from lapse.demo import is_bundled

    if is_bundled(folder):
        return "the demo agent (app `concierge`)"
    return f"the agents of {folder}"
