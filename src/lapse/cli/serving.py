"""A server of `lapse serve`: one process that answers, or several that share its sockets."""

from __future__ import annotations

import gc
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from lapse.cli.command import fail, run_async
from lapse.cli.ports import address, within_files

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from lapse.settings import Settings

_GRACE: Final = timedelta(seconds=1)
"""How long open connections may take to end at shutdown."""

_ACCEPTED_AT_ONCE: Final = 4
"""Connections that one pass of the event loop accepts: uvloop accepts one for each socket that it
listens on. A user's connection waits in one queue with those of strangers."""

_KEEP_ALIVE: Final = timedelta(seconds=75)
"""Longer than the 60 s of common load balancers, so that the balancer closes a connection first."""

_COLLECTED_AFTER: Final = 2_000, 10, 100
"""`gc.set_threshold`. The last is 10 by default: with ten thousand connections each full collection
stops the server for a fifth of a second, and there was one every two seconds."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What a server serves, and where; it can be sent to a worker process.

    Attributes:
        settings: the settings, the same for all processes of the server.
        folder: the folder of agents.
        listener: the socket of the main port, bound.
        operators: the socket of the operators' port, bound; None: they have none of their own.
        web: whether ADK's developer UI is served, too.
        allow_origins: origins of pages that may call.
    """

    settings: Settings
    folder: Path
    listener: socket.socket
    operators: socket.socket | None
    web: bool
    allow_origins: tuple[str, ...]

    def close(self) -> None:
        """Close this process's sockets: once the workers close theirs, nobody can connect."""
        self.listener.close()
        if self.operators is not None:
            self.operators.close()

    def announce(self) -> None:
        """Print the addresses, so that scripts can wait for that."""
        workers = self.settings.workers
        several = f" with {workers} workers" if workers > 1 else ""
        served = f"Lapse serves {_described(self.folder)} on {address(self.listener)}{several}"
        told = [served]
        if self.operators is not None:
            told.append(f"Operators' pages: {address(self.operators)}/lapse/")
        elif self.settings.admin_token is not None:
            told.append(f"Operators' pages: {address(self.listener)}/lapse/")
        typer.echo("\n".join(told), err=True)


def serve_here(serving: Serving, *, on_started: Callable[[], None]) -> None:
    """Open the store, so that its errors come first, then serve until a signal comes.

    `on_started` is called once connections are accepted.
    """
    # Imports create a quarter of a million objects and no garbage. Collecting during the imports
    # takes an eighth of the start; without `gc.freeze` below, each later full collection takes a
    # fifth of a second longer.
    gc.disable()
    from lapse.app import Lapse
    from lapse.auth import authentication_of

    settings, operators = serving.settings, serving.operators
    authentication = authentication_of(settings.authentication, origins=serving.allow_origins)
    lapse = Lapse(settings=settings, notes_artifacts=True)
    run_async(lapse.store.open())

    import uvicorn

    from lapse.dashboard.entrance import OperatorsPortMiddleware
    from lapse.limits.protocol import bounded
    from lapse.notices.routes import NoticeStreamMiddleware
    from lapse.telemetry.provider import set_quiet_provider
    from lapse.web.middleware.access_log import AccessLog
    from lapse.web.middleware.telemetry import UnreadTelemetryMiddleware
    from lapse.web.server import BelowPrefix

    set_quiet_provider()
    host, port = serving.listener.getsockname()[:2]
    operators_port: int | None = operators.getsockname()[1] if operators else None
    web_app = lapse.app(
        serving.folder,
        serving.web,
        host=host,
        port=port,
        allow_origins=serving.allow_origins,
        admin_port=operators_port,
        authentication=authentication,
    )
    served: ASGIApp = UnreadTelemetryMiddleware(NoticeStreamMiddleware(web_app))
    if operators_port is not None:
        served = OperatorsPortMiddleware(served, operators_port)
    if web_app.root_path:
        served = BelowPrefix(served, web_app.root_path)
    if settings.access_log:
        served = AccessLog(served)

    class Server(uvicorn.Server):
        """Tells once it accepts connections."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_started()

    protocol = bounded(within_files(settings.bounds))

    async def look() -> None:
        await protocol.crowds.look(len(server.server_state.connections))

    server = Server(
        uvicorn.Config(
            served,
            http=protocol,
            ws_max_size=settings.bounds.body,
            server_header=False,
            log_config=None,
            access_log=False,
            # Headers can be forged; uvicorn must report the socket's peer as the client.
            proxy_headers=False,
            timeout_graceful_shutdown=int(_GRACE.total_seconds()),
            timeout_keep_alive=int(_KEEP_ALIVE.total_seconds()),
            callback_notify=look,
            timeout_notify=1,
        )
    )
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)
    gc.enable()
    # Whether a socket blocks is one flag for all processes that share it, and `dup` sets it anew.
    serving.listener.setblocking(False)
    listeners = [serving.listener.dup() for _ in range(_ACCEPTED_AT_ONCE - 1)]
    sockets = [serving.listener, *listeners]
    server.run(sockets=sockets if operators is None else [*sockets, operators])


@dataclass(frozen=True, slots=True)
class _Worker:
    """What a worker process does, with a folder and a key that the workers of a server share."""

    serving: Serving
    folder: Path
    key: bytes

    def __call__(self, number: int, on_started: Callable[[], None]) -> None:
        from setproctitle import setproctitle

        from lapse.dashboard.options import share_key
        from lapse.store.sqlite import neighbours
        from lapse.telemetry.logs import configure_logging
        from lapse.telemetry.shared_counts import share_counts

        setproctitle(f"lapse serve: worker {number}")
        configure_logging(self.serving.settings.log, worker=number)
        share_counts(self.folder, number)
        share_key(self.key)
        neighbours.meet_in(self.folder)
        serve_here(self.serving, on_started=on_started)


def serve_with_workers(serving: Serving) -> None:
    """Serve with the number of worker processes that the settings say, until a signal comes."""
    from lapse.cli.workers import Workers
    from lapse.telemetry.shared_counts import forget_gauges

    # Before the first worker accepts: one that came to accept on a blocking socket would hang.
    serving.listener.setblocking(False)
    with _shared_folder() as name:
        folder = Path(name)
        workers = Workers(
            _Worker(serving, folder, secrets.token_bytes(32)),
            serving.settings.workers,
            on_started=serving.announce,
            on_ended=lambda number: forget_gauges(folder, number),
            on_ending=serving.close,
            on_orphaned=partial(shutil.rmtree, folder, ignore_errors=True),
        )
        failure = workers.run()
    workers.end_by_signals()
    if failure is not None:
        if failure.text is not None:
            typer.echo(failure.text, err=True)
        sys.exit(failure.status)


def _shared_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="lapse-", ignore_cleanup_errors=True)
    except OSError as error:
        fail(f"--workers: no folder for what the workers count can be made: {error}; set TMPDIR")


def _described(folder: Path) -> str:
    from lapse.demo import is_bundled

    if is_bundled(folder):
        return "the demo agent (app `concierge`)"
    return f"the agents of {folder}"
