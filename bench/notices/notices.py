"""Thousands of open notice streams on one server: memory, idle CPU, reads, warnings on time.

    python -m bench.notices.notices [--streams 5000] [--postgres] [--out bench/notices/notices.md]

The streams are watched by this process, over real sockets; the server is `lapse serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import uvloop

from bench.support.pg_server import running as postgres
from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from lapse.store import store_from_url
from lapse.store.sessions import Sessions

HEARTBEAT = 15.0
IDLE = 3 * HEARTBEAT
SPREAD = 30.0
"""The warnings come within so many seconds: as many in each as in a minute of a busy site."""

_SERVER = Path(__file__).with_name("notices_server.py")
_EVENT = re.compile(rb"event: (\w+)")
_URL = re.compile(r"http://127\.0\.0\.1:(\d+)")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Stream(asyncio.Protocol):
    """One open stream; it knows when its warning is due, and when each event came."""

    key: SessionKey
    due: float
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    came: list[tuple[str, float]] = field(default_factory=list)
    transport: asyncio.Transport | None = None

    def connection_made(self, transport):
        self.transport = transport
        path = f"/apps/{self.key.app_name}/users/{self.key.user_id}/sessions/{self.key.session_id}"
        transport.write(f"GET {path}/lifecycle/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def data_received(self, data):
        now = time.time()
        for name in _EVENT.findall(data):
            self.came.append((name.decode(), now))
            self.opened.set()

    def connection_lost(self, _error):
        self.opened.set()


@dataclass(frozen=True, slots=True)
class Server:
    """The measured process."""

    process: subprocess.Popen[bytes]
    port: int
    reads_file: Path

    @property
    def memory(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE

    @property
    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def reads(self, start: float, end: float) -> list[int]:
        """Return how many sessions each read in an interval asked for."""
        lines = [line.split() for line in self.reads_file.read_text().splitlines()]
        return [int(count) for at, count in lines if start <= float(at) < end]


@contextmanager
def server(url: str, folder: Path) -> Iterator[Server]:
    log, reads = folder / "server.log", folder / "reads"
    reads.touch()
    environment = {**os.environ, "LAPSE_STORE_URL": url, "LAPSE_WARN_MINUTES": "5"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(_SERVER), str(reads), "serve", "--port", "0"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        while not (found := _URL.search(log.read_text())):
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        yield Server(process, int(found[1]), reads)
    finally:
        process.terminate()
        process.wait()


async def open_streams(server: Server, streams: Sequence[Stream]) -> None:
    """Open streams, 50 at a time, and return once each has had its first event."""
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(50)

    async def open_one(stream: Stream) -> None:
        async with gate:
            await loop.create_connection(lambda: stream, "127.0.0.1", server.port)
            await stream.opened.wait()
            if not stream.came:
                raise RuntimeError("a stream was closed by the server")

    await asyncio.gather(*(open_one(stream) for stream in streams))


async def create(url: str, name: str, count: int, warned: Sequence[float]) -> list[Stream]:
    """Create sessions, each to be warned of its deadline, at half its TTL, so long from now."""
    store = store_from_url(url)
    await store.open()
    gate = asyncio.Semaphore(8)

    async def create_one(number: int) -> Stream:
        key = SessionKey("concierge", f"{name}-{number}", f"session-{name}-{number}")
        ttl = timedelta(seconds=2 * warned[number])
        async with gate:
            created = await Sessions(store).create(key, state=StateDelta(), ttl=ttl, metadata={})
        return Stream(key, (created.changes[0].record.created_at + ttl / 2).timestamp())

    streams = await asyncio.gather(*(create_one(number) for number in range(count)))
    await store.close()
    return streams


async def measure(url: str, folder: Path, count: int) -> dict[str, str]:
    with server(url, folder) as running:
        first = await create(url, "first", 100, [600.0] * 100)
        await open_streams(running, first)
        for stream in first:
            stream.transport.close()
        await asyncio.sleep(2)
        before = running.memory

        ahead = 20 + count / 125 + IDLE
        warned = [ahead + SPREAD * number / count for number in range(count)]
        streams = await create(url, "watched", count, warned)
        began = time.time()
        await open_streams(running, streams)
        opening = time.time() - began
        await asyncio.sleep(3)
        after = running.memory

        start, cpu = time.time(), running.cpu
        await asyncio.sleep(IDLE)
        idle = (running.cpu - cpu) / (time.time() - start)
        reads = running.reads(start, time.time())
        grown = running.memory
        if time.time() > streams[0].due:
            raise RuntimeError("the machine is too slow: warnings fell into the idle time")

        await asyncio.sleep(streams[-1].due - time.time() + 5)
        warning_reads = running.reads(streams[0].due, streams[0].due + SPREAD)
        late = sorted(
            at - stream.due for stream in streams for name, at in stream.came if name == "expiring"
        )
        ended, process = time.perf_counter(), running.process
        process.terminate()
        process.wait()
        stopping = time.perf_counter() - ended
    return {
        "memory of each stream": f"{(after - before) / count / 1024:.1f} KiB",
        f"after {IDLE:.0f} s more": f"{(grown - before) / count / 1024:.1f} KiB",
        "opened, 50 at a time": f"{count / opening:.0f} a second",
        "idle CPU": f"{idle:.1%} of a core",
        f"reads of the store in {IDLE:.0f} s idle": f"{len(reads)} (of {_range(reads)} sessions)",
        "warnings that came": f"{len(late)} of {count}",
        "warnings before their time": f"{sum(each < 0 for each in late)}",
        "lateness of a warning, p50 / p99 / max": " / ".join(
            f"{late[min(len(late) - 1, int(len(late) * share))] * 1000:.0f} ms"
            for share in (0.5, 0.99, 1)
        ),
        f"reads while {count / SPREAD:.0f} warnings a second fall due": (
            f"{len(warning_reads) / SPREAD:.1f} a second"
        ),
        "shutdown with all streams open": f"{stopping:.2f} s",
    }


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if counts else "no"


def report(results: dict[str, dict[str, str]], count: int) -> str:
    names = list(results)
    circumstances = (
        f"{datetime.now(UTC):%Y-%m-%d}. {platform.machine()}, {os.cpu_count()} cores, shared with "
        f"others: load {os.getloadavg()[1]:.1f}. Python {platform.python_version()}, "
        f"google-adk {version('google-adk')}, uvicorn {version('uvicorn')}."
    )
    lines = [
        "# Notices, measured",
        "",
        f"{count} open streams of as many sessions on one `lapse serve`, over real sockets, as",
        "`make bench-notices` measures them. Memory is the growth of the resident memory.",
        circumstances,
        "",
        f"| | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
    ]
    lines += [
        f"| {label} | " + " | ".join(results[name][label] for name in names) + " |"
        for label in results[names[0]]
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    files = options.streams + 1000
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    results = {}
    with ExitStack() as stack:
        for name in options.stores:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lapse-bench-")))
            url = f"sqlite:///{folder}/sessions.db"
            if name == "postgres":
                url = stack.enter_context(postgres(folder)).make("notices")
            results[name] = uvloop.run(measure(url, folder, options.streams))
            print(name, results[name], sep="\n", flush=True)
    if options.out:
        options.out.write_text(report(results, options.streams), "utf-8")


if __name__ == "__main__":
    main()
