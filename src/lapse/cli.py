"""The command line."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import signal
import socket
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lapse.commands.databases import adopt, copy, report, undo
from lapse.commands.simulate import simulate
from lapse.commands.starting import StoreOption, VerboseOption, fail, open_settings, open_store
from lapse.commands.ttl import ttl_commands
from lapse.errors import LapseError

if TYPE_CHECKING:
    from lapse.settings import Settings
    from lapse.store import Store

app = typer.Typer(
    help="The session life-cycle layer for agents built with Google's ADK.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_GRACE: Final = timedelta(seconds=1)
"""How long open connections may take to end when the server stops."""

_KEEP_ALIVE: Final = timedelta(seconds=75)
"""Longer than the 60 s of common load balancers, so that it is they who let go first."""

_WATCH_SLEEP: Final = timedelta(seconds=1)
"""A sweeper by itself hears of no deadline that others make; looking is cheap."""


@app.command()
def serve(
    agents_dir: Annotated[
        Path | None,
        typer.Argument(help="A folder of ADK agents; without it, the bundled demo agent."),
    ] = None,
    store: StoreOption = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    local_llm: Annotated[
        bool,
        typer.Option(
            "--local-llm", help="The demo with a small language model on this machine; slow."
        ),
    ] = False,
    web: Annotated[bool, typer.Option("--web", help="Serve ADK's developer UI, too.")] = False,
    allow_origins: Annotated[
        list[str] | None,
        typer.Option("--allow-origins", help="Origin of a page that may call; repeatable."),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Listen beyond this machine although nobody is authenticated."
        ),
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Serve ADK agents over HTTP, their sessions kept by Lapse."""
    settings = open_settings(store, verbose=verbose)
    if not insecure and not _is_loopback(host):
        fail(
            f"--host {host}: beyond this machine anyone could read every session, for there is "
            "no authentication; listen on 127.0.0.1 behind a proxy that authenticates, or say "
            "--insecure"
        )
    folder = _local_llm(agents_dir) if local_llm else _agents(agents_dir)
    listener = _listen(host, port)
    try:
        _serve(settings, folder, listener, web=web, allow_origins=tuple(allow_origins or ()))
    finally:
        listener.close()


@app.command()
def sweep(
    store: StoreOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on sweeping until stopped by a signal.")
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Expire what is due and purge what is past restoring, and say what was done."""
    settings = open_settings(store, verbose=verbose)
    if not settings.cleanup_enabled:
        fail("SESSION_CLEANUP_ENABLED is false: nothing may be swept")
    asyncio.run(_watch(settings) if watch else _sweep(settings))


@app.command()
def migrate(
    store: StoreOption = None,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the SQL instead of running it.")
    ] = False,
) -> None:
    """Bring a store's tables up to date, for servers whose role may not create any."""
    settings = open_settings(store, verbose=False)
    asyncio.run(_migrate(open_store(settings), print_only=print_only))


@app.command()
def verify(
    url: Annotated[
        str | None,
        typer.Option(help="A running server to play against, instead of a throw-away one."),
    ] = None,
) -> None:
    """Play the life of sessions against a server, and print what holds."""
    from lapse.verify import play

    raise typer.Exit(asyncio.run(play(url)))


for command in (report, adopt, undo, copy, simulate):
    app.command()(command)
app.add_typer(ttl_commands, name="ttl")


def main() -> None:
    """Run the command line; Lapse's own errors end it with one sentence and status 1."""
    try:
        app()
    except LapseError as error:
        fail(str(error))


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
    from lapse.agents import has_agents

    if not has_agents(folder):
        fail(
            f"{folder}: holds no agents; ADK looks for FOLDER/NAME/agent.py with a root_agent, "
            "or FOLDER/NAME/root_agent.yaml"
        )
    return folder


def _local_llm(folder: Path | None) -> Path:
    from lapse.demo_llm import AGENTS_DIR, missing

    if folder is not None:
        fail("--local-llm is a demo of its own: it takes no folder of agents")
    if ways := missing():
        fail(
            "--local-llm needs what is not installed: "
            + " && ".join(f"pip install {_quoted(way)}" for way in ways)
        )
    from lapse.demo_llm.model import server

    # ADK loads agents while it serves: nobody else would be answered meanwhile.
    server()
    return AGENTS_DIR


def _quoted(arguments: str) -> str:
    return f"'{arguments}'" if "[" in arguments else arguments


def _is_bundled(folder: Path) -> bool:
    from lapse import demo, demo_llm

    return folder in {demo.AGENTS_DIR, demo_llm.AGENTS_DIR}


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        fail(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port")
    return listener


def _serve(
    settings: Settings,
    folder: Path,
    listener: socket.socket,
    *,
    web: bool,
    allow_origins: tuple[str, ...],
) -> None:
    """Open the store, so that its faults come first, then serve until a signal comes."""
    # Nothing that imports make is garbage: to look for some among a quarter of a million objects
    # takes an eighth of the start, and a fifth of a second at each full collection later.
    gc.disable()
    store = open_store(settings)
    asyncio.run(store.open())

    import uvicorn

    from lapse.changes import Feed
    from lapse.demo import APP_NAME
    from lapse.policy import TtlPolicy
    from lapse.sessions import LapseSessionService
    from lapse.web.app import ServerOptions, build_app
    from lapse.web.notices import StreamsInFront

    host, port = listener.getsockname()[:2]
    options = ServerOptions(
        agents_dir=folder,
        host=host,
        port=port,
        web=web,
        allow_origins=allow_origins,
        # The demo's folder is part of the installed package: nothing is written there.
        artifact_service_uri="memory://" if _is_bundled(folder) else None,
        chat_app=APP_NAME if _is_bundled(folder) else None,
        watch=settings.watch,
    )
    feed = Feed()
    policy = TtlPolicy(store, settings.targets, settings.ttl_policy, feed)
    service = LapseSessionService(store, feed=feed, policy=policy)
    web_app, runs = build_app(
        service,
        options,
        sweep=settings.sweeper and settings.cleanup_enabled,
        adopt=settings.adopt,
        run_limits=settings.run_limits,
    )
    shown = f"[{host}]" if ":" in host else host

    class Server(uvicorn.Server):
        """Says where it listens once it does, so that whoever waits for the line can connect.

        Told to stop, it listens no more, ends the streams of notices, which have no end of their
        own, and lets runs finish before it closes connections.
        """

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                typer.echo(f"Lapse serves {_described(folder)} on http://{shown}:{port}", err=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for listening in self.servers:
                listening.close()
            for end in web_app.state.lapse_endings:
                end()
            await runs.drain()
            await super().shutdown(sockets)

    server = Server(
        uvicorn.Config(
            StreamsInFront(web_app),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=int(_GRACE.total_seconds()),
            timeout_keep_alive=int(_KEEP_ALIVE.total_seconds()),
        )
    )
    gc.freeze()
    gc.enable()
    server.run(sockets=[listener])


def _described(folder: Path) -> str:
    if _is_bundled(folder):
        return "the demo agent (app `concierge`)"
    return f"the agents of {folder}"


async def _migrate(store: Store, *, print_only: bool) -> None:
    try:
        script = await store.pending_migration()
        if print_only:
            typer.echo(script, nl=False)
            return
        await store.open()
        typer.echo("the tables were brought up to date" if script else "nothing to do")
    finally:
        await store.close()


async def _sweep(settings: Settings) -> None:
    from lapse.changes import Feed
    from lapse.logs import log_change
    from lapse.sweeper import sweep_once

    store = open_store(settings)
    feed = Feed()
    feed.subscribe(log_change)
    expired = purged = kept = 0
    try:
        while True:
            report = await sweep_once(store, feed)
            expired, purged, kept = (
                expired + report.expired,
                purged + report.purged,
                kept + report.kept,
            )
            if not report.full:
                break
    finally:
        await store.close()
    typer.echo(f"expired {expired}, purged {purged}, kept {kept}")


async def _watch(settings: Settings) -> None:
    from lapse.adopt.continuous import Adopter
    from lapse.changes import Feed
    from lapse.logs import log_change, log_sweep
    from lapse.policy import TtlPolicy
    from lapse.settings import Adopt
    from lapse.sweeper import Sweeper

    store = open_store(settings)
    await store.open()
    feed = Feed()
    feed.subscribe(log_change)
    policy = TtlPolicy(store, settings.targets, settings.ttl_policy, feed)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(
                Sweeper(store, feed, on_report=log_sweep, longest_sleep=_WATCH_SLEEP)
            )
            if settings.adopt is not Adopt.OFF:
                adopter = Adopter(store, feed, scope=settings.adopt, ttl=settings.ttl)
                await stack.enter_async_context(adopter.running())
            await policy.start()
            typer.echo("sweeping until stopped", err=True)
            await stop.wait()
    finally:
        await policy.stop()
        await store.close()
