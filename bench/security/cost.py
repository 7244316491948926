"""Measures what a request costs of the server's CPU, with one tree of Lapse's source and another.

    python -m bench.security.cost BEFORE/src NOW/src [--rounds 5] [--requests 300] [--out FILE]

Each round serves each tree in turn, so that what else the machine does meets both. The figures
are medians of rounds: user and system time of all threads of the server, by the kernel's clock.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from bench.auth.security import Issuer
from bench.support.children import AGENTS

GOAL: Final = 1.05
_URL: Final = re.compile(r"http://127\.0\.0\.1:(\d+)")
_MAIN: Final = "from lapse.cli.main import main; main()"
_SESSIONS: Final = "/apps/echo/users/ann/sessions"
_WARM: Final = 100
_UNLIMITED: Final = dict.fromkeys(
    (
        "LAPSE_CREATES_PER_MINUTE_PER_USER",
        "LAPSE_CREATES_PER_MINUTE_PER_ADDRESS",
        "LAPSE_WAITING_PER_USER",
        "LAPSE_WAITING_PER_ADDRESS",
    ),
    "0",
)
Figures = dict[str, list[float]]


def main() -> None:
    """Measure both trees; print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("now", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    before: Figures = defaultdict(list)
    now: Figures = defaultdict(list)
    for number in range(options.rounds):
        trees = [(options.before, before), (options.now, now)]
        for tree, figures in trees if number % 2 else trees[::-1]:
            for name, cost in measure(tree.resolve(), options.requests).items():
                figures[name].append(cost)
    text = report(before, now, rounds=options.rounds, requests=options.requests, load=load)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def measure(tree: Path, requests: int) -> dict[str, float]:
    """Return the seconds of CPU of one request of each kind."""
    issuer = Issuer("HS256")
    with serving(tree, issuer.settings) as (pid, port):
        client = Client(port, issuer.headers("ann"))
        kinds = {
            "create": client.create,
            "get": client.get,
            "create, through every middleware": lambda: client.create("?all"),
            "get, through every middleware": lambda: client.get("?all"),
            "`/run_sse`": client.run,
            "`/lapse/client.js` of a stranger": client.public,
        }
        costs = {}
        for name, ask in kinds.items():
            for _ in range(_WARM):
                ask()
            began = cpu(pid)
            for _ in range(requests):
                ask()
            costs[name] = (cpu(pid) - began) / requests
    return costs


def cpu(pid: int) -> float:
    """Return the seconds that all threads of a process have run."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e9


class Client:
    """Asks as one user, on one connection."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._stranger = http.client.HTTPConnection("127.0.0.1", port)
        self._headers = headers | {"Content-Type": "application/json"}
        self._said = {"role": "user", "parts": [{"text": "hello"}]}
        self._session = json.loads(self.create())["id"]
        self._talk = json.loads(self.create())["id"]

    def create(self, query: str = "") -> bytes:
        return self._ask("POST", _SESSIONS + query, b"{}")

    def get(self, query: str = "") -> bytes:
        return self._ask("GET", f"{_SESSIONS}/{self._session}{query}")

    def run(self) -> bytes:
        # A session of its own each time: a long one costs more, and both trees alike.
        session = json.loads(self.create())["id"]
        body = {"appName": "echo", "userId": "ann", "sessionId": session, "newMessage": self._said}
        return self._ask("POST", "/run_sse", json.dumps(body).encode())

    def public(self) -> bytes:
        self._stranger.request("GET", "/lapse/client.js")
        return self._stranger.getresponse().read()

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said
        return said


@contextmanager
def serving(tree: Path, settings: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Serve the echo agent with a tree of source; yield the process and its port."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "serve.log"
        path = os.pathsep.join((str(tree), str(AGENTS)))
        store = {"LAPSE_STORE_URL": f"sqlite:///{folder}/lapse.db", "PYTHONPATH": path}
        command = [sys.executable, "-c", _MAIN, "serve", str(AGENTS), "--port", "0"]
        with log.open("wb") as lines:
            process = subprocess.Popen(
                command,
                env=os.environ | _UNLIMITED | settings | store,
                cwd=folder,
                stdout=lines,
                stderr=lines,
            )
        try:
            while not (found := _URL.search(log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield process.pid, int(found.group(1))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def report(before: Figures, now: Figures, *, rounds: int, requests: int, load: float) -> str:
    """Return what was measured as Markdown."""
    lines = [
        "# What a request costs, measured",
        "",
        (
            f"By `bench/security/cost.py` with CPython {platform.python_version()}, "
            f"{os.cpu_count()} cores, load {load:.1f} before, SQLite, `LAPSE_AUTH=jwt`: medians of "
            f"{rounds} interleaved rounds of {requests} requests, user and system time of the "
            "server's process. `/run_sse` is a creation and a run."
        ),
        "",
        "| request | before, ms | now, ms | now to before |",
        "|---|--:|--:|--:|",
    ]
    ratios = {}
    for name in now:
        one, other = median(before[name]) * 1e3, median(now[name]) * 1e3
        ratios[name] = other / one
        lines.append(f"| {name} | {one:.3f} | {other:.3f} | {other / one:.3f} |")
    worst = max(ratios, key=ratios.__getitem__)
    kept = "met" if ratios[worst] <= GOAL else "MISSED"
    lines += [
        "",
        (
            f"The most that a request costs more is {ratios[worst]:.3f} times as much ({worst}); "
            f"the goal, {GOAL:g} times, is {kept}."
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
