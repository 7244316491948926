"""`lapse serve`: serves ADK agents over HTTP, with their sessions in Lapse."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapse.cli import adk_options
from lapse.cli.command import VerboseOption, fail, open_settings
from lapse.cli.ports import listen
from lapse.cli.serving import Serving, serve_here, serve_with_workers

if TYPE_CHECKING:
    from lapse.settings import Settings

_log = logging.getLogger(__name__)


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
    conversations: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="The session service in which used sessions live; by default --store has them.",
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
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Number of processes that answer; each has its own bounds of connections, bodies, "
            "streams, readers, plain runs and log-ins.",
            show_default="1",
        ),
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
    from lapse.auth.addresses import is_loopback
    from lapse.auth.options import AuthMode

    settings = open_settings(
        store,
        verbose=verbose,
        log_level=log_level,
        conversations_uri=conversations,
        workers=workers,
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
    if settings.auth is AuthMode.NONE and not insecure and not is_loopback(host):
        fail(
            f"--host {host}: without authentication everybody who reaches this address could "
            "read every session; set LAPSE_AUTH (see docs/security.md), listen on 127.0.0.1, or "
            "give --insecure"
        )
    if settings.auth is not AuthMode.NONE:
        _check_origins(allow_origins or ())
    if settings.workers > 1:
        _check_workers(settings, local_llm=local_llm)
    folder = _local_llm(agents_dir) if local_llm else _agents(agents_dir)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(host, port))
        operators = None
        admin_port = settings.admin_port if admin_port is None else admin_port
        if admin_port is not None:
            where = admin_host or settings.admin_host
            operators = stack.enter_context(listen(where, admin_port, option="--admin-port"))
            if operators.getsockname()[1] == listener.getsockname()[1]:
                fail(f"--admin-port {admin_port}: must differ from --port")
        serving = Serving(settings, folder, listener, operators, web, tuple(allow_origins or ()))
        if settings.workers > 1:
            serve_with_workers(serving)
        else:
            serve_here(serving, on_started=serving.announce)


def _check_origins(origins: Sequence[str]) -> None:
    from lapse.auth.origins import check_origins
    from lapse.core.errors import InvalidValueError

    try:
        check_origins(origins)
    except InvalidValueError as error:
        fail(f"--allow-origins: {error.reason}")


def _check_workers(settings: Settings, *, local_llm: bool) -> None:
    """Refuse what several processes cannot share; say what each of them then has of its own."""
    from lapse.store.urls import MEMORY, place_of

    number = f"--workers {settings.workers}"
    place = place_of(settings.store_url)
    if not settings.is_shared and place.rpartition("/")[2] in {"", MEMORY}:
        fail(f"{number}: each process would have sessions of its own in {place}; name a file")
    uri = settings.conversations_uri or ""
    if MEMORY in uri or uri.startswith("memory:"):
        fail(
            f"{number}: each process would have conversations of its own in {uri}; name a database"
        )
    if local_llm:
        fail(f"{number}: each process would load a model of its own; leave out --local-llm")
    server = settings.server
    own = {
        "artifacts (--artifact-service-uri)": server.artifact_service_uri == "memory://"
        or (server.artifact_service_uri is None and not server.use_local_storage),
        "memories (--memory-service-uri)": server.memory_service_uri in {None, "memory://"},
        "tasks of A2A (--task-store-uri)": server.a2a and server.task_store_uri is None,
    }
    if told := [name for name, is_own in own.items() if is_own]:
        _log.warning("each of %d workers keeps its own %s", settings.workers, " and ".join(told))


def _agents(folder: Path | None) -> Path:
    from lapse.demo import AGENTS_DIR

    if folder is None:
        return AGENTS_DIR
    if not folder.is_dir():
        fail(f"{folder}: there is no such folder of agents; name one, or none for the demo agent")
    from lapse.adk.agents import has_agents

    if not has_agents(folder):
        fail(
            f"{folder}: holds no agents; ADK looks for FOLDER/NAME/agent.py with a root_agent, "
            "or FOLDER/NAME/root_agent.yaml"
        )
    return folder


def _local_llm(folder: Path | None) -> Path:
    from lapse.adk.private.versions import OPENAI, is_there, needs_newer
    from lapse.demo.local_llm import AGENTS_DIR, missing

    if folder is not None:
        fail("--local-llm runs its own demo agent; do not give a folder of agents")
    if not is_there(OPENAI):
        fail(f"--local-llm {needs_newer(OPENAI)}")
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
