"""Measures runs that outlive their connection and writes the results to runs.md; see there."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.support import pg_server
from bench.support.children import AGENTS
from bench.support.peers import sqlalchemy_url

_BIN: Final = Path(sys.executable).parent
_URL: Final = re.compile(r"http://127\.0\.0\.1:(\d+)")
_USER: Final = "ada"

FIRST_BYTE_GOAL: Final = 1.2
LAG_GOAL: Final = 250.0
_BIG: Final = 16_000


def main() -> None:
    """Measure both stores; only a full run is written down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look at it in a minute")
    quick = parser.parse_args().quick
    requests, readers, events = (60, 500, 100) if quick else (150, 500, 300)
    load = os.getloadavg()[0]
    parts = []
    with tempfile.TemporaryDirectory() as folder, pg_server.running(Path(folder)) as server:
        scratch = Path(folder)
        for store in ("sqlite", "postgres"):
            url = f"sqlite:///{scratch}/runs.db" if store == "sqlite" else server.make("runs")
            adk = f"sqlite:///{scratch}/adk.db" if store == "sqlite" else server.make("adk")
            with lapse(scratch, url) as port, api_server(scratch, adk) as adk_port:
                first = first_bytes(port, adk_port, requests)
                many = lags(port, readers, events)
                calm = lags(port, 20, 4 * events, per_second=50, padding=_BIG)
                stalled = lags(port, 20, 4 * events, per_second=50, padding=_BIG, stalled=True)
            parts.append(
                section(
                    store,
                    first=first,
                    many=many,
                    calm=calm,
                    stalled=stalled,
                    readers=readers,
                    requests=requests,
                )
            )
            print(parts[-1], flush=True)
    if not quick:
        text = head(load) + "\n".join(parts)
        Path(__file__).with_name("runs.md").write_text(text, "utf-8")


@contextmanager
def lapse(folder: Path, url: str) -> Iterator[int]:
    """Run `lapse serve` and yield its port."""
    command = [str(_BIN / "lapse"), "serve", str(AGENTS), "--store", url, "--port", "0"]
    log_file = folder / f"lapse-{time.monotonic_ns()}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        while not (found := _URL.search(log_file.read_text("utf-8"))):
            assert process.poll() is None, log_file.read_text("utf-8")
            time.sleep(0.05)
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def api_server(folder: Path, url: str) -> Iterator[int]:
    """Run ADK's own server on its own service and yield its port."""
    port = 18_765
    service = ["--session_service_uri", sqlalchemy_url(url), str(AGENTS)]
    command = [str(_BIN / "adk"), "api_server", "--port", str(port), *service]
    with (folder / "adk.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        while True:
            assert process.poll() is None, (folder / "adk.log").read_text("utf-8")
            try:
                call(http.client.HTTPConnection("127.0.0.1", port), "GET", "/health")
            except OSError:
                time.sleep(0.05)
            else:
                break
        yield port
    finally:
        process.terminate()
        process.wait(30)


def call(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text
    return json.loads(text)


def first_bytes(port: int, adk_port: int, requests: int) -> dict[str, list[float]]:
    """Return how long the first event took, in milliseconds, by way; the ways take turns."""
    ours, adks = (http.client.HTTPConnection("127.0.0.1", one) for one in (port, adk_port))

    def sse(connection: http.client.HTTPConnection, **headers: str) -> Callable[[str], float]:
        def ask(session: str) -> float:
            body = {
                "appName": "ticker",
                "userId": _USER,
                "sessionId": session,
                "newMessage": {"role": "user", "parts": [{"text": "1 0 0"}]},
            }
            return first_event(connection, "/run_sse", body, headers)

        return ask

    def legacy(session: str) -> float:
        path = f"/apps/ticker/users/{_USER}/sessions/{session}/run"
        return first_event(ours, path, {"message": "1 0 0"}, {"Accept": "text/event-stream"})

    ways = {
        "adk": (adks, sse(adks)),
        "plain": (ours, sse(ours)),
        "detached": (ours, sse(ours, **{"Lapse-Detach": "true"})),
        "legacy": (ours, legacy),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-10, requests):
        order = list(ways) if number % 2 else list(reversed(ways))
        for way in order:
            connection, ask = ways[way]
            path = f"/apps/ticker/users/{_USER}/sessions"
            session = call(connection, "POST", path, {})["id"]
            spent = ask(session)
            if number >= 0:
                took[way].append(spent)
    return took


def first_event(
    connection: http.client.HTTPConnection, path: str, body: Any, headers: dict[str, str]
) -> float:
    """Return the milliseconds until the first event of a stream is here; read the rest."""
    data = json.dumps(body)
    began = time.perf_counter()
    connection.request("POST", path, data, {"Content-Type": "application/json"} | headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    while not answer.readline().startswith(b"data:"):
        pass
    took = time.perf_counter() - began
    answer.read()
    return took * 1e3


def lags(
    port: int,
    readers: int,
    events: int,
    *,
    per_second: int = 20,
    padding: int = 0,
    stalled: bool = False,
) -> dict[str, Any]:
    """Return how late the events of one run came to many readers."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    session = f"s{time.monotonic_ns()}"
    path = f"/apps/ticker/users/{_USER}/sessions/{session}/run"
    body = {"message": f"{events} {per_second} {padding}"}
    told = call(connection, "POST", path, body)
    worker = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("runs_worker.py")),
            str(port),
            told["stream"],
            str(readers),
            *(["stalled"] if stalled else []),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    result: dict[str, Any] = json.loads(worker.stdout.readline())
    worker.wait()
    assert result["complete"], "a reader did not get to the end"
    return result


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def head(load: float) -> str:
    return f"""# Runs, measured

Written by `make bench-runs`, in one run: lapse {version("lapse")}, google-adk
{version("google-adk")}, Python {platform.python_version()}, {os.cpu_count()} cores, with others at
work on them (load average {load:.1f} when it began). Servers and readers share the machine.

"""


def section(
    store: str,
    *,
    first: dict[str, list[float]],
    many: dict[str, Any],
    calm: dict[str, Any],
    stalled: dict[str, Any],
    readers: int,
    requests: int,
) -> str:
    base = statistics.median(first["plain"])
    names = {
        "adk": "`adk api_server`, its DatabaseSessionService",
        "plain": "`/run_sse` of Lapse, as ADK has it",
        "detached": "`/run_sse`, `Lapse-Detach: true`",
        "legacy": "`POST …/run`, streamed",
    }
    rows = "\n".join(
        f"| {names[way]} | {statistics.median(took):.2f} | {quantile(took, 0.95):.2f} "
        f"| {statistics.median(took) / base:.2f} |"
        for way, took in first.items()
    )

    def late(result: dict[str, Any]) -> str:
        kept = result["lags"]
        return (
            f"{len(kept)} | {quantile(kept, 0.5):.1f} | {quantile(kept, 0.99):.1f} "
            f"| {max(kept):.1f}"
        )

    fate = "dropped" if stalled["dropped"] else "not dropped"
    had = "had every event in the end" if stalled["all"] else "missed events"
    return f"""## {store}

First byte, in ms, of {requests} runs each, taking turns; the goal is at most {FIRST_BYTE_GOAL}
times as late as `/run_sse` on the same agent and store:

| | median | p95 | ratio |
|---|---|---|---|
{rows}

Lag of readers, in ms, from the moment an event is made until it is read; every event is stored. The
goal is {LAG_GOAL:.0f} ms at p99:

| | events read | p50 | p99 | max |
|---|---|---|---|---|
| {readers} readers, 20 events/s | {late(many)} |
| 20 readers, 50 events/s of 16 kB | {late(calm)} |
| the same, and one that does not read | {late(stalled)} |

The one that did not read was {fate}, resumed {stalled["resumes"]} time(s), and {had}.
"""


if __name__ == "__main__":
    main()
