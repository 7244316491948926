"""The servers, side by side: start, create and /run_sse over HTTP with 32 connections."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.support.children import AGENTS, Child
from bench.support.figures import medians
from bench.support.peers import sqlalchemy_url
from bench.support.places import Places
from bench.support.scale import Scale

CONNECTIONS: Final = 32
APP: Final = "echo"
_BIN: Final = Path(sys.executable).parent
_START_TIMEOUT: Final = 60.0
_USERS: Final = 100


@dataclass(frozen=True, slots=True)
class Server:
    """A server to measure: its name and its command on a port, with sessions at a URL."""

    name: str
    label: str
    command: Callable[[int, str], list[str]]


def _lapse(port: int, url: str) -> list[str]:
    return [str(_BIN / "lapse"), "serve", str(AGENTS), "--store", url, "--port", str(port)]


def _api_server(as_adk_has_it: Callable[[str], str]) -> Callable[[int, str], list[str]]:
    def command(port: int, url: str) -> list[str]:
        adk = [str(_BIN / "adk"), "api_server", "--port", str(port)]
        return [*adk, "--session_service_uri", as_adk_has_it(url), str(AGENTS)]

    return command


_DATABASE: Final = _api_server(sqlalchemy_url)

SERVERS: Final = {
    "sqlite": (
        Server("lapse", "lapse serve on SQLite", _lapse),
        Server("sqlite", "adk api_server, SqliteSessionService", _api_server(str)),
        Server("database", "adk api_server, DatabaseSessionService", _DATABASE),
    ),
    "postgres": (
        Server("lapse", "lapse serve on PostgreSQL", _lapse),
        Server("database", "adk api_server, DatabaseSessionService", _DATABASE),
    ),
}


def measure(scale: Scale, scratch: Path, places: Places) -> dict[str, Any]:
    """Return medians by server, and what the load generator reaches at most."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    servers = SERVERS[places.store]
    with Child("bench.http.load_worker", cwd=scratch) as load:
        ceiling = _ceiling(load, scratch)
        for number in range(scale.http_rounds):
            print(f"  servers: round {number + 1} of {scale.http_rounds}", flush=True)
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                with places.fresh() as url:
                    steps = _round(server, load, scale, scratch, url)
                for step, sample in steps.items():
                    found[server.name][step].append(sample)
    return {
        "ceiling": ceiling,
        "servers": {
            name: {step: medians(samples) for step, samples in steps.items()}
            | {"wrong": _wrong(steps)}
            for name, steps in found.items()
        },
    }


def _ceiling(load: Child, scratch: Path) -> float:
    port = _free_port()
    with _running(
        [sys.executable, str(Path(__file__).with_name("bare_server.py")), str(port)], scratch
    ):
        _wait_for(port, b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
        rate: float = _load(load, port, [("/", {})], seconds=1.0, repeat=True, expected="id")[
            "rate"
        ]
    return rate


def _round(
    server: Server, load: Child, scale: Scale, scratch: Path, url: str
) -> dict[str, dict[str, Any]]:
    """Start a server on an empty database and measure it; every session has one run."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        port = _free_port()
        began = time.perf_counter()
        with _running(server.command(port, url), Path(directory)):
            _wait_for(port, b"GET /list-apps HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            started = time.perf_counter() - began
            _load(load, port, [_create(0)], seconds=0.2, repeat=True, expected='"id"')
            created = _load(
                load,
                port,
                [_create(user) for user in range(_USERS)],
                seconds=scale.create_seconds,
                repeat=True,
                expected='"id"',
                keep=True,
            )
            sessions = created.pop("kept")
            ran = _load(
                load,
                port,
                [_run(user, session) for user, session in sessions],
                seconds=scale.run_seconds,
                repeat=False,
                expected="noted",
            )
    return {"start": {"seconds": started}, "create": created, "run_sse": ran}


def _load(
    load: Child,
    port: int,
    requests: list[tuple[str, Any]],
    *,
    seconds: float,
    repeat: bool,
    expected: str,
    keep: bool = False,
) -> dict[str, Any]:
    return load.ask(
        port=port,
        connections=CONNECTIONS,
        requests=requests,
        seconds=seconds,
        repeat=repeat,
        expected=expected,
        keep=keep,
    )


def _create(user: int) -> tuple[str, Any]:
    return f"/apps/{APP}/users/user-{user}/sessions", {}


def _run(user: str, session: str) -> tuple[str, Any]:
    message = {"role": "user", "parts": [{"text": "Is there a table for four on Friday?"}]}
    body = {"appName": APP, "userId": user, "sessionId": session, "newMessage": message}
    return "/run_sse", body


@contextmanager
def _running(command: list[str], directory: Path) -> Iterator[None]:
    """Run a server inside the block; what it logs goes to a file, as in production."""
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, request: bytes) -> None:
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


def _wrong(steps: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    total: dict[str, int] = defaultdict(int)
    for step, samples in steps.items():
        for sample in samples:
            for what, count in sample.get("wrong", {}).items():
                total[f"{step}: {what}"] += count
    return dict(total)
