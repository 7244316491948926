"""`lapse serve`: agents over HTTP, their sessions kept by Lapse."""

from __future__ import annotations

import gc
import ipaddress
import socket
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lapse.cli.command import (
    StoreOption,
    VerboseOption,
    fail,
    open_settings,
    run_async,
)

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from lapse.limits.rules import Bounds
    from lapse.settings import Settings

_GRACE: Final = timedelta(seconds=1)
"""How long open connections may take to end when the server stops."""

_OTHER_FILES: Final = 150
"""Files that a server has open beside its connections: the store's, the log, libraries."""

_KEEP_ALIVE: Final = timedelta(seconds=75)
"""Longer than the 60 s of common load balancers, so that it is they who let go first."""


def serve(
    agents_dir: Annotated[
        Path | None,
        typer.Argument(help="A folder of ADK agents; by default the bundled demo agent."),
    ] = None,
    store: StoreOption = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")
    ] = 8000,
    local_llm: Annotated[
        bool,
        typer.Option(
            "--local-llm", help="Run the demo on a small, slow language model on this machine."
        ),
    ] = False,
    web: Annotated[bool, typer.Option("--web", help="Also serve ADK's developer UI.")] = False,
    allow_origins: Annotated[
        list[str] | None,
        typer.Option("--allow-origins", help="An origin whose pages may call; repeatable."),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Listen beyond this machine although nobody is authenticated."
        ),
    ] = False,
    admin_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve the operators' pages on this port, not on --port."
        ),
    ] = None,
    admin_host: Annotated[
        str | None, typer.Option(help="The address of --admin-port.", show_default="127.0.0.1")
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Serve ADK agents over HTTP, with their sessions in Lapse."""
    from lapse.auth.options import AuthMode

    settings = open_settings(store, verbose=verbose)
    if settings.auth is AuthMode.NONE and not insecure and not _is_loopback(host):
        fail(
            f"--host {host}: beyond this machine anyone could read every session, for there is "
            "no authentication; set LAPSE_AUTH (see docs/security.md), listen on 127.0.0.1, or "
            "say --insecure"
        )
    folder = _local_llm(agents_dir) if local_llm else _agents(agents_dir)
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port))
        operators = None
        admin_port = settings.admin_port if admin_port is None else admin_port
        if admin_port is not None:
            where = admin_host or settings.admin_host
            operators = stack.enter_context(_listen(where, admin_port, option="--admin-port"))
            if operators.getsockname()[1] == listener.getsockname()[1]:
                fail(f"--admin-port {admin_port}: is --port, too; choose another one")
        _serve(
            settings, folder, listener, operators, web=web, allow_origins=tuple(allow_origins or ())
        )


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
        fail("--local-llm is a demo of its own: it takes no folder of agents")
    if ways := missing():
        fail(
            "--local-llm needs what is not installed: "
            + " && ".join(f"pip install {_quoted(way)}" for way in ways)
        )
    from lapse.demo.local_llm.model import server

    # ADK loads agents while it serves: nobody else would be answered meanwhile.
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
    """Open the store, so that its faults come first, then serve until a signal comes."""
    # Nothing that imports make is garbage: to look for some among a quarter of a million objects
    # takes an eighth of the start, and a fifth of a second at each full collection later.
    gc.disable()
    from lapse.app import Lapse
    from lapse.auth import authentication_of

    authentication = authentication_of(settings.authentication, origins=allow_origins)
    lapse = Lapse(settings=settings, notes_artifacts=True)
    run_async(lapse.store.open())

    import uvicorn

    from lapse.dashboard.routes import OperatorsPortMiddleware
    from lapse.limits.protocol import bounded
    from lapse.notices.routes import StreamsInFront

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
    served: ASGIApp = StreamsInFront(web_app)
    announced = [f"Lapse serves {_described(folder)} on {_address(listener)}"]
    if operators is not None and operators_port is not None:
        served = OperatorsPortMiddleware(served, operators_port)
        announced.append(f"Operators' pages: {_address(operators)}/lapse/")
    elif settings.admin_token is not None:
        announced.append(f"Operators' pages: {_address(listener)}/lapse/")

    class Server(uvicorn.Server):
        """Says where it listens once it does, so that whoever waits for the line can connect.

        Told to stop, it listens no more, ends the streams of notices, which have no end of their
        own, and lets runs finish before it closes connections.
        """

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                typer.echo("\n".join(announced), err=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for listening in self.servers:
                listening.close()
            for end in web_app.state.lapse_endings:
                end()
            await web_app.state.lapse_runs.drain()
            await super().shutdown(sockets)

    server = Server(
        uvicorn.Config(
            served,
            http=bounded(_within_files(settings.bounds)),
            ws_max_size=settings.bounds.body,
            server_header=False,
            log_config=None,
            access_log=False,
            # Whom a header names as the client, anybody may say: the peer is who is connected.
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
    """Return the bounds with no more connections than this process may have open files."""
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
