"""A flood of creations against a server that authenticates: what it leaves, and what it costs.

    python -m bench.quotas.flood [--requests 50000] [--postgres] [--out bench/quotas/flood.md]

Each flood has a `lapse serve` of its own, with quotas as they are where users are authenticated;
the last one without limits of rate, so that every creation is made. A header names the user, as
behind a proxy, and another one the address that the proxy has seen.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from bench.support.children import AGENTS
from bench.support.pg_server import running as postgres
from lapse.overview.store import OverviewStore
from lapse.store import store_from_url

CONNECTIONS = 16
_URL = re.compile(r"http://127\.0\.0\.1:(\d+)")
_STATUS = re.compile(rb"HTTP/1\.1 (\d+)")
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_AUTH = {"LAPSE_AUTH": "header", "LAPSE_AUTH_PROXIES": "127.0.0.1"}
_UNLIMITED = {f"LAPSE_CREATES_PER_MINUTE{of}": "0" for of in ("", "_PER_USER", "_PER_ADDRESS")}

_COLUMNS = (
    "flood",
    "created",
    "refused",
    "waiting rows left",
    "expired rows left",
    "memory at first",
    "at most",
    "at last",
    "log, KiB",
    "requests/s",
)


@dataclass(frozen=True)
class Flood:
    """One flood: its users, its addresses and its settings."""

    title: str
    user: Callable[[int], str]
    address: Callable[[int], str]
    settings: dict[str, str]


def _of(number: int) -> str:
    return f"198.51.{number // 250}.{number % 250 + 1}"


FLOODS = (
    Flood("one user, one address", lambda _: "eve", lambda _: _of(0), {}),
    Flood("1,000 users, one address", lambda n: f"u{n % 1000}", lambda _: _of(0), {}),
    Flood(
        "500 users, each at an address of their own",
        lambda n: f"u{n % 500}",
        lambda n: _of(n % 500),
        {},
    ),
    Flood(
        "one user, no limit of rate: every session is created",
        lambda _: "eve",
        lambda _: _of(0),
        _UNLIMITED,
    ),
)


@contextmanager
def serving(folder: Path, url: str, settings: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Serve for the duration of the block; yield the port and the process."""
    log = folder / "serve.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAPSE_")}
    command = [str(Path(sys.executable).with_name("lapse")), "serve", str(AGENTS)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", "0", "--store", url],
            cwd=folder,
            env=kept | _AUTH | settings,
            stdout=out,
            stderr=out,
        )
    try:
        while not (found := _URL.search(log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield int(found[1]), process.pid
    finally:
        process.terminate()
        process.wait(30)


def resident(pid: int) -> float:
    """Return how many MB of memory a process has."""
    (line,) = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(line) / 1024


async def create(reader, writer, flood: Flood, number: int) -> int:
    user = flood.user(number)
    head = (
        f"POST /apps/echo/users/{user}/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"X-Forwarded-User: {user}\r\nX-Forwarded-For: {flood.address(number)}\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    writer.write(head.encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    found = _LENGTH.search(answer)
    await reader.readexactly(int(found[1]) if found else 0)
    return int(_STATUS.match(answer)[1])


async def pour(port: int, pid: int, flood: Flood, requests: int) -> tuple[Counter, list[float]]:
    """Send the requests; return the answers by status, and the memory as it went."""
    numbers = iter(range(requests))
    statuses: Counter = Counter()
    memory: list[float] = []

    async def connection():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            statuses[await create(reader, writer, flood, number)] += 1
            if number % (requests // 20) == 0:
                memory.append(resident(pid))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    memory.append(resident(pid))
    return statuses, memory


async def rows(url: str) -> dict[str, int]:
    store = store_from_url(url)
    try:
        found = await OverviewStore(store).overview(since=timedelta(0))
        return {str(tally.status): tally.sessions for tally in found.tallies}
    finally:
        await store.close()


def measure(flood: Flood, requests: int, url: str, folder: Path) -> str:
    print(f"  {flood.title}", flush=True)
    with serving(folder, url, flood.settings) as (port, pid):
        asyncio.run(pour(port, pid, flood, requests // 25))  # what is loaded once is there
        began = time.perf_counter()
        statuses, memory = asyncio.run(pour(port, pid, flood, requests))
        took = time.perf_counter() - began
    left = asyncio.run(rows(url))
    assert set(statuses) <= {200, 429}, statuses
    log = (folder / "serve.log").stat().st_size
    return (
        f"| {flood.title} | {statuses[200]:,} | {statuses[429]:,} | {left.get('waiting', 0):,} "
        f"| {left.get('expired', 0):,} | {memory[0]:.0f} | {max(memory):.0f} | {memory[-1]:.0f} "
        f"| {log // 1024} | {requests / took:,.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    store = "PostgreSQL" if asked.postgres else "SQLite"
    load = os.getloadavg()[0]
    told = (
        f"{asked.requests:,} creations over {CONNECTIONS} connections, {store}, "
        f"lapse {version('lapse')}, google-adk {version('google-adk')}, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores that the flood shares, load average "
        f"{load:.1f} when it began. Memory in MB of RSS."
    )
    lines = [told, "", f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    with ExitStack() as stack:
        server = stack.enter_context(postgres()) if asked.postgres else None
        for number, flood in enumerate(FLOODS):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = server.make(f"flood{number}") if server else f"sqlite:///{folder}/lapse.db"
            lines.append(measure(flood, asked.requests, url, folder))
    text = "\n".join(lines) + "\n"
    print(text)
    if asked.out:
        asked.out.write_text(f"# A flood of creations, measured\n\n{text}")


if __name__ == "__main__":
    main()
