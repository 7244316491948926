"""The servers, side by side: sessions and runs over HTTP, with 32 connections and with 4."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.http.asked import Asked, create, get, list_of, run, seeds
from bench.http.servers import LIST_APPS, SERVERS, Server, free_port, running, wait_for
from bench.support.children import Child
from bench.support.figures import medians
from bench.support.places import Places
from bench.support.processes import cpu_of, resident_of
from bench.support.scale import Scale

CONNECTIONS: Final = 32
FEW: Final = 4
_USERS: Final = 100
_IDLE: Final = 500


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
        "connection": _connection(servers[0], scratch, places),
        "servers": {
            name: {step: medians(samples) for step, samples in steps.items()}
            | {"wrong": _wrong(steps)}
            for name, steps in found.items()
        },
    }


def _ceiling(load: Child, scratch: Path) -> float:
    port = free_port()
    bare = [sys.executable, str(Path(__file__).with_name("bare_server.py")), str(port)]
    with running(bare, scratch) as pid:
        wait_for(port, b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
        rate: float = Loaded(load, port, pid).ask([("POST", "/", {})], 1.0, expected="id")["rate"]
    return rate


def _connection(server: Server, scratch: Path, places: Places) -> float:
    """Return the bytes that an open connection takes, once it has had an answer."""
    with (
        places.fresh() as url,
        tempfile.TemporaryDirectory(dir=scratch) as directory,
        ExitStack() as opened,
    ):
        port = free_port()
        with running(server.command(port, url), Path(directory)) as pid:
            wait_for(port)
            before = resident_of(pid)
            for _ in range(_IDLE):
                connection = socket.create_connection(("127.0.0.1", port))
                opened.enter_context(connection)
                connection.sendall(LIST_APPS)
                connection.recv(4096)
            return (resident_of(pid) - before) / _IDLE


def _round(
    server: Server, load: Child, scale: Scale, scratch: Path, url: str
) -> dict[str, dict[str, Any]]:
    """Start a server on an empty database and measure it; every session has one run."""
    steps: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        port = free_port()
        with running(server.command(port, url), Path(directory)) as pid:
            wait_for(port)
            loaded = Loaded(load, port, pid)
            loaded.ask([create("user-0")], 0.2, expected='"id"')
            users = [create(f"user-{number}") for number in range(_USERS)]
            steps["create"] = loaded.ask(users, scale.create_seconds, expected='"id"', keep=True)
            sessions = steps["create"].pop("kept")
            if "get_50" in server.steps:
                seeded = loaded.ask(
                    seeds(), 60.0, expected='"id"', keep=True, once=True, connections=1
                )
                assert not seeded["wrong"], seeded["wrong"]
                made = seeded["kept"]
                long = [get(user, session) for user, session in made if user.startswith("long")]
                listed = sorted({user for user, _ in made if user.startswith("listed")})
                steps["get_50"] = loaded.ask(long, scale.read_seconds, expected="reserve_table")
                steps["list_20"] = loaded.ask(
                    [list_of(user) for user in listed], scale.read_seconds, expected='"id"'
                )
            runs = [run(user, session) for user, session in sessions]
            third = len(runs) // 3 if "run_few" in server.steps else 0
            seconds = scale.run_seconds
            if third:
                steps["run_few"] = loaded.ask(
                    runs[:third], seconds, expected="noted", once=True, connections=FEW
                )
            steps["run_sse"] = loaded.ask(runs[third:], seconds, expected="noted", once=True)
            steps["after"] = {"resident": resident_of(pid)}
    return steps


@dataclass(frozen=True, slots=True)
class Loaded:
    """A running server under the load generator's requests."""

    load: Child
    port: int
    pid: int

    def ask(
        self,
        requests: list[Asked],
        seconds: float,
        *,
        expected: str,
        keep: bool = False,
        once: bool = False,
        connections: int = CONNECTIONS,
    ) -> dict[str, Any]:
        """Return how it went; `cpu` is what the server used for an answer, in seconds.

        The requests are repeated until the time is over; `once`, it ends with the last of them.
        """
        before = cpu_of(self.pid)
        answer = self.load.ask(
            port=self.port,
            connections=connections,
            requests=requests,
            seconds=seconds,
            repeat=not once,
            expected=expected,
            keep=keep,
        )
        return answer | {"cpu": (cpu_of(self.pid) - before) / max(1, answer["answers"])}


def _wrong(steps: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    total: dict[str, int] = defaultdict(int)
    for step, samples in steps.items():
        for sample in samples:
            for what, count in sample.get("wrong", {}).items():
                total[f"{step}: {what}"] += count
    return dict(total)
