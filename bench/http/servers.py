"""The servers that are measured side by side, and how each is run."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.support.children import AGENTS, environment
from bench.support.peers import sqlalchemy_url

_BIN: Final = Path(sys.executable).parent
_START_TIMEOUT: Final = 60.0

LIST_APPS: Final = b"GET /list-apps HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Server:
    """A server to measure: its name, and its command on a port, with sessions at a URL.

    Attributes:
        name: how results name it.
        label: how the report names it.
        command: what runs it under load.
        plain: what runs it as its users do, where its start is measured; None: it is not.
        steps: what is measured with it.
    """

    name: str
    label: str
    command: Callable[[int, str], list[str]]
    plain: Callable[[int, str], list[str]] | None
    steps: frozenset[str]


def _lapse(port: int, url: str) -> list[str]:
    return [str(_BIN / "lapse"), "serve", str(AGENTS), "--store", url, "--port", str(port)]


def _api_server(
    as_adk_has_it: Callable[[str], str], *, frozen: bool = True
) -> Callable[[int, str], list[str]]:
    def command(port: int, url: str) -> list[str]:
        plain = [str(_BIN / "adk")]
        adk = [sys.executable, "-m", "bench.http.adk_server"] if frozen else plain
        uri = as_adk_has_it(url)
        return [*adk, "api_server", "--port", str(port), "--session_service_uri", uri, str(AGENTS)]

    return command


_ALL: Final = frozenset({"create", "get_50", "list_20", "run_sse", "run_few"})
_DATABASE: Final = Server(
    "database",
    "adk api_server, DatabaseSessionService",
    _api_server(sqlalchemy_url),
    _api_server(sqlalchemy_url, frozen=False),
    _ALL,
)
_MEMORY: Final = Server(
    "memory",
    "adk api_server, memory://",
    _api_server(lambda _url: "memory://"),
    None,
    frozenset({"create", "run_sse"}),
)

SERVERS: Final = {
    "sqlite": (
        Server("lapse", "lapse serve on SQLite", _lapse, _lapse, _ALL),
        Server(
            "sqlite",
            "adk api_server, SqliteSessionService",
            _api_server(str),
            _api_server(str, frozen=False),
            _ALL,
        ),
        _MEMORY,
    ),
    "postgres": (
        Server("lapse", "lapse serve on PostgreSQL", _lapse, _lapse, _ALL),
        _DATABASE,
    ),
}


@contextmanager
def running(command: list[str], directory: Path) -> Iterator[int]:
    """Run a server inside the block and yield its process id; it logs to a file."""
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=directory, env=environment()
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, request: bytes = LIST_APPS) -> None:
    """Return at the first answer that is a success."""
    end = time.perf_counter() + _START_TIMEOUT
    while time.perf_counter() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_START_TIMEOUT) as probe:
                probe.sendall(request)
                if b" 200 " in probe.recv(64):
                    return
        except OSError:
            time.sleep(0.01)
    raise RuntimeError("a server did not start")
