"""Measures a user's requests beside a crowd of strangers, and what the crowd leaves behind.

Writes the results to connections.md; see there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.auth.security import Issuer
from bench.security.crowd import SAID
from bench.support.children import BENCH, Child, environment
from bench.support.figures import quantile

GOAL: Final = 2.0
_CALLERS: Final = 8
_PAUSE: Final = 0.02
ALONE: Final = "alone"
_MIB: Final = 2**20
_URL: Final = re.compile(r"http://127\.0\.0\.1:(\d+)")
_SESSIONS: Final = "/apps/concierge/users/ann/sessions"


def main() -> None:
    """Measure; only a full run is written down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small crowd, a look in a minute")
    parser.add_argument("--count", type=int, help="how many strangers")
    chosen = parser.parse_args()
    scale = Scale(1_000, 5.0, 500) if chosen.quick else Scale(10_000, 20.0, 1_000)
    if chosen.count:
        scale = Scale(chosen.count, scale.seconds, scale.pace)
    out = BENCH / "out"
    out.mkdir(exist_ok=True)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=out) as folder:
        text = report(measure(Path(folder), scale), scale, load=load)
    print(text)
    if not (chosen.quick or chosen.count):
        Path(__file__).with_name("connections.md").write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Scale:
    """How many strangers there are, for how long, and how many may come in a second."""

    count: int
    seconds: float
    pace: int

    @property
    def ramp(self) -> float:
        """Return how many seconds they take to come."""
        return self.count / self.pace + 1


@dataclass(slots=True)
class Window:
    """What a user's requests took in one stretch of time, and what the server held then."""

    name: str
    latencies: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    crowd: dict[str, Any] = field(default_factory=dict)
    cpu: float = 0.0
    peak: int = 0
    after: int = 0
    files_after: int = 0

    @property
    def p50(self) -> float:
        return quantile(self.latencies, 0.5) * 1e3

    @property
    def p99(self) -> float:
        return quantile(self.latencies, 0.99) * 1e3


def keep_to(pid: int, cores: set[int]) -> None:
    """Have all threads of a process run on some cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


class Served:
    """A running server, seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self.pid = process.pid

    @property
    def resident(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def files(self) -> int:
        return len([*Path(f"/proc/{self.pid}/fd").iterdir()])

    @property
    def cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(folder: Path, settings: dict[str, str]) -> Iterator[Served]:
    """Serve the demo's agent with authentication."""
    log = folder / "serve.log"
    given = environment() | settings | {"LAPSE_STORE_URL": f"sqlite:///{folder}/lapse.db"}
    lapse = Path(sys.executable).with_name("lapse")
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [lapse, "serve", "--port", "0"], env=given, stdout=lines, stderr=lines
        )
    try:
        while not (found := _URL.search(log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield Served(process, int(found.group(1)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


class Caller:
    """One connection of the user's, opened anew where the server has closed it."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._port = port
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        self._head = "Host: 127.0.0.1\r\nContent-Type: application/json\r\n" + "".join(lines)
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: str = "") -> bytes:
        """Return the answer's body; OSError where there is none but a 200."""
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}{length}\r\n{body}".encode())
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            found = re.search(rb"content-length: (\d+)", head)
            answer = await self._reader.readexactly(int(found.group(1)) if found else 0)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._writer.close()
            raise ConnectionResetError(f"no answer to {method}") from error
        if not head.startswith(b"http/1.1 200"):
            raise ConnectionRefusedError(f"{head[9:12].decode()} to {method}")
        return answer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def _call(caller: Caller, window: Window, end: float) -> None:
    """Create a session, send it a message and read it, again and again."""
    session_id = ""
    steps = 0
    while time.perf_counter() < end:
        began = time.perf_counter()
        try:
            if steps % 3 == 0:
                session_id = json.loads(await caller.ask("POST", _SESSIONS, "{}"))["id"]
            elif steps % 3 == 1:
                said = {
                    "appName": "concierge",
                    "userId": "ann",
                    "sessionId": session_id,
                    "newMessage": {"role": "user", "parts": [{"text": "hello"}]},
                }
                await caller.ask("POST", "/run", json.dumps(said))
            else:
                await caller.ask("GET", f"{_SESSIONS}/{session_id}")
        except OSError as error:
            window.wrong[str(error)] += 1
            steps = 0
        else:
            window.latencies.append(time.perf_counter() - began)
            steps += 1
        await asyncio.sleep(_PAUSE)


async def _requests(
    served: Served, headers: dict[str, str], window: Window, seconds: float
) -> None:
    callers = [Caller(served.port, headers) for _ in range(_CALLERS)]
    end, cpu, began = time.perf_counter() + seconds, served.cpu, time.perf_counter()

    async def look() -> None:
        while True:
            window.peak = max(window.peak, served.resident)
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    await asyncio.gather(*(_call(caller, window, end) for caller in callers))
    looking.cancel()
    window.cpu = (served.cpu - cpu) / (time.perf_counter() - began)
    for caller in callers:
        caller.close()


def measure(folder: Path, scale: Scale) -> list[Window]:
    """Return the windows: alone, and beside each kind of crowd."""
    issuer = Issuer("HS256")
    headers = issuer.headers("ann")
    windows: list[Window] = []

    def window(name: str, served: Served, seconds: float) -> Window:
        one = Window(name)
        asyncio.run(_requests(served, headers, one, seconds))
        one.after, one.files_after = served.resident, served.files
        windows.append(one)
        return one

    with (
        serving(folder, issuer.settings) as served,
        Child("bench.security.crowd", cwd=folder) as crowd,
    ):
        # What the crowd and the user cost themselves must not slow the server down.
        first, *others = sorted(os.sched_getaffinity(0))
        if others:
            keep_to(served.pid, {first})
            keep_to(crowd.process.pid, set(others))
            keep_to(os.getpid(), set(others))
        # Once before: a server that has never had so many keeps what it made for them.
        for kind in SAID:
            crowd.ask(
                kind=kind,
                port=served.port,
                count=scale.count // 10,
                pace=scale.pace,
                ramp=1.0,
                seconds=1.0,
            )
        window("warm", served, scale.seconds / 4)
        windows.clear()
        alone = window(ALONE, served, scale.seconds / 2)
        for kind in SAID:
            print(f"{kind} …", flush=True)
            crowd.send(
                kind=kind,
                port=served.port,
                count=scale.count,
                pace=scale.pace,
                ramp=scale.ramp,
                seconds=scale.seconds,
            )
            window(f"{kind}, while they come", served, scale.ramp)
            held = window(kind, served, scale.seconds)
            held.crowd = crowd.receive()
            end = time.monotonic() + 60
            while served.files > alone.files_after + 2 and time.monotonic() < end:
                time.sleep(0.1)
            window(ALONE, served, scale.seconds / 2)
    return windows


def _failed(window: Window) -> str:
    kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(window.wrong.items()))
    wrong = window.wrong.total()
    told = f"{wrong} of {wrong + len(window.latencies):,}"
    return f"{told} ({kinds})" if kinds else told


def report(windows: list[Window], scale: Scale, *, load: float) -> str:
    """Return what was measured as Markdown."""
    alone = median(one.p99 for one in windows if one.name == ALONE)
    worst = max((one for one in windows if one.crowd), key=lambda one: one.p99)
    ratio = worst.p99 / alone
    verdict = "met" if ratio <= GOAL else "MISSED"
    lines = [
        "# Connections of strangers, measured",
        "",
        (
            f"By `bench/security/connections.py` with Lapse {version('lapse')}, uvicorn "
            f"{version('uvicorn')}, CPython {platform.python_version()}, {os.cpu_count()} cores, "
            f"load {load:.1f} before, SQLite, `LAPSE_AUTH=jwt`, all else as it comes."
        ),
        "",
        (
            f"A user's {_CALLERS} connections create a session, send it a message and read it, "
            f"with {_PAUSE * 1e3:.0f} ms between two requests, while {scale.count:,} connections "
            "without a token are open. One that the server closes comes again, at most "
            f"{scale.pace:,} in a second. *Idle* ones say nothing; a *slow head* and a *slow "
            "body* get a byte every five seconds; *unread* ones ask 20 times for "
            "`/lapse/client.js` and read nothing. The server has a core of its own."
        ),
        "",
        (
            "| crowd | held, mean | closed by the server | p50, ms | p99, ms | to alone | failed "
            "| CPU | RSS peak, MiB | RSS after, MiB | files after |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in windows:
        crowd = one.crowd
        cells = [
            one.name,
            f"{crowd['held']:,.0f}" if crowd else "",
            f"{crowd['closed']:,}" if crowd else "",
            f"{one.p50:.1f}",
            f"{one.p99:.1f}",
            f"{one.p99 / alone:.2f}",
            _failed(one),
            f"{one.cpu:.0%}",
            f"{one.peak / _MIB:.0f}",
            f"{one.after / _MIB:.0f}" if one.name == ALONE else "",
            f"{one.files_after}" if one.name == ALONE else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        (
            f"Once they are there, the worst p99 is {ratio:.2f} times that of the user alone "
            f"({worst.name}; {alone:.1f} ms is the median of the user's windows alone); the goal, "
            f"within {GOAL:g} times, is {verdict}."
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
