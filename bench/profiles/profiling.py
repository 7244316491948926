"""Where the time goes: a flame graph of each operation, and shares of it by layer.

Nothing here is a measurement: py-spy stops the process each time it looks. It looks at the thread
that holds the interpreter's lock, of which a process has one: what SQLite, fsync and the network
take beside it is not seen.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.http.asked import create, get, list_of, run, seeds
from bench.http.servers import SERVERS, free_port, running, wait_for
from bench.http.serving import Loaded
from bench.support import pg_server
from bench.support.children import Child
from bench.support.peers import OPERATIONS
from bench.support.places import Databases, Files, Places

_RATE: Final = 200
_SECONDS: Final = 4.0
_SESSIONS: Final = 60_000

LAYERS: Final = {
    "lapse/": "Lapse",
    "(adk/": "ADK",
    "(genai/": "ADK",
    "google/adk/": "ADK",
    "fastapi/": "FastAPI and Starlette",
    "starlette/": "FastAPI and Starlette",
    "uvicorn/": "uvicorn",
    "pydantic": "pydantic",
    "opentelemetry/": "OpenTelemetry",
    "sqlite3": "SQLite",
    "asyncpg/": "asyncpg",
    "anyio/": "anyio and asyncio",
    "asyncio/": "anyio and asyncio",
    "bench/": "the benchmark and its agent",
}
"""By a part of a frame's file, the layer that it belongs to; the innermost frame decides."""


@dataclass(frozen=True, slots=True)
class Spy:
    """py-spy, and the folder in which it leaves what it sees."""

    program: str
    folder: Path

    def watch(
        self,
        pid: int,
        name: str,
        load: Callable[[float], None],
        *,
        before: Callable[[], None] | None = None,
    ) -> Counter[str]:
        """Leave a flame graph of a process under load, and return its samples by layer.

        The load comes twice; `before` prepares each.
        """
        print(f"  {name}", flush=True)
        svg, raw = self.folder / f"{name}.svg", self.folder / f"{name}.txt"
        for target, shape in ((svg, "flamegraph"), (raw, "raw")):
            if before is not None:
                before()
            record = [self.program, "record", "--gil", "--pid", str(pid), "--rate", str(_RATE)]
            process = subprocess.Popen(
                [*record, "--duration", "3600", "--format", shape, "--output", str(target)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(0.5)  # it reads the process's symbols first
            load(_SECONDS)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        return _by_layer(raw.read_text("utf-8"))


def leave_in(folder: Path, stores: Iterable[str], out: Path) -> None:
    """Leave flame graphs of servers and session services in a folder, and a table of shares."""
    spy = shutil.which(
        "py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if spy is None:
        raise SystemExit("py-spy is not installed: pip install --group bench")
    folder.mkdir(parents=True, exist_ok=True)
    shares: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(dir=out) as directory, ExitStack() as stack:
        scratch = Path(directory)
        for store in stores:
            at: Places = Files(scratch)
            if store == "postgres":
                at = Databases(stack.enter_context(pg_server.running(scratch)))
            shares |= _services(Spy(spy, folder), scratch, at)
            shares |= _servers(Spy(spy, folder), scratch, at)
    (folder / "shares.md").write_text(_table(shares), "utf-8")
    print(f"{folder} has flame graphs, and shares.md", flush=True)


def _services(spy: Spy, scratch: Path, places: Places) -> dict[str, Counter[str]]:
    found = {}
    with (
        Child("bench.services.service_worker", places.store, "lapse", cwd=scratch) as worker,
        places.fresh() as url,
    ):
        worker.ask(do="open", url=url)
        for operation in OPERATIONS:

            def load(seconds: float, operation: str = operation) -> None:
                worker.ask(do="measure", operation=operation, callers=32, seconds=seconds)

            # Each first message needs a session that has none.
            before = partial(load, _SECONDS, "create_session")
            name = f"{places.store}-service-{operation}"
            found[name] = spy.watch(
                worker.process.pid,
                name,
                load,
                before=before if operation == "append_first" else None,
            )
    return found


def _servers(spy: Spy, scratch: Path, places: Places) -> dict[str, Counter[str]]:
    found = {}
    server = SERVERS[places.store][0]
    with (
        Child("bench.http.load_worker", cwd=scratch) as load,
        places.fresh() as url,
        tempfile.TemporaryDirectory(dir=scratch) as directory,
    ):
        port = free_port()
        with running(server.command(port, url), Path(directory)) as pid:
            wait_for(port)
            loaded = Loaded(load, port, pid)
            made = loaded.ask(seeds(), 60.0, expected='"id"', keep=True, once=True)["kept"]
            long = [get(*key) for key in made if key[0].startswith("long")]
            listed = [list_of(user) for user in sorted({user for user, _ in made})]
            users = [create(f"user-{number}") for number in range(100)]
            fresh: list[Any] = loaded.ask(users, _SECONDS, expected='"id"', keep=True)["kept"]
            runs = iter(fresh[:_SESSIONS])

            def some_runs() -> list[Any]:
                return [run(*next(runs)) for _ in range(len(fresh) // 2)]

            steps: dict[str, Callable[[], dict[str, Any]]] = {
                "create": lambda: {"requests": users, "expected": '"id"'},
                "get_50": lambda: {"requests": long, "expected": "reserve_table"},
                "list_20": lambda: {"requests": listed, "expected": '"id"'},
                "run_sse": lambda: {"requests": some_runs(), "expected": "noted", "once": True},
            }
            for step, asked in steps.items():

                def work(seconds: float, asked: Callable[[], dict[str, Any]] = asked) -> None:
                    given = asked()
                    loaded.ask(given.pop("requests"), seconds, **given)

                name = f"{places.store}-http-{step}"
                found[name] = spy.watch(pid, name, work)
    return found


def _by_layer(raw: str) -> Counter[str]:
    layers: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        layers[_layer(stack.split(";"))] += int(count)
    return layers


def _layer(frames: list[str]) -> str:
    for frame in reversed(frames):
        for part, layer in LAYERS.items():
            if part in frame:
                return layer
    return "Python"


def _table(shares: dict[str, Counter[str]]) -> str:
    layers = [*dict.fromkeys(LAYERS.values()), "Python"]
    lines = ["| |" + "|".join(layers) + "|", "|---|" + "---|" * len(layers)]
    for name, counted in shares.items():
        total = max(1, counted.total())
        cells = "|".join(f"{counted[layer] / total:.0%}" for layer in layers)
        lines.append(f"|{name}|{cells}|")
    return "\n".join(lines) + "\n"
