"""Processes of the benchmark, which answer requests, each a line of JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Self

import uvloop

BENCH = Path(__file__).parents[1]
AGENTS = BENCH / "support" / "agents"

Request = dict[str, Any]
Answer = dict[str, Any]


class Child:
    """A process that runs one of the worker modules; what it logs goes to a file.

    Args:
        module: the worker module.
        args: its arguments.
        cwd: where it runs, and where its log goes.
        source: a folder whose modules win over this checkout's, such as an earlier Lapse.
    """

    def __init__(self, module: str, *args: str, cwd: Path, source: Path | None = None) -> None:
        self._name = " ".join((module, *args))
        self._log = cwd / f"{module.rpartition('.')[2]}-{'-'.join(args) or 'only'}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=cwd,
                env=environment(source),
                text=True,
            )

    def send(self, **request: Any) -> None:
        """Ask for something; `receive` waits for the answer."""
        stdin = _stream(self.process.stdin)
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()

    def receive(self) -> Answer:
        """Return the answer to the oldest request that has none yet."""
        line = _stream(self.process.stdout).readline()
        if not line:
            tail = self._log.read_text("utf-8", "replace")[-2000:]
            raise RuntimeError(f"{self._name} ended before it answered:\n{tail}")
        answer: Answer = json.loads(line)
        return answer

    def ask(self, **request: Any) -> Answer:
        """Ask for something and return the answer."""
        self.send(**request)
        return self.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _stream(self.process.stdin).close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _stream(self.process.stdout).close()


def environment(source: Path | None = None) -> dict[str, str]:
    """Return this process's environment, with the benchmark's modules on Python's path.

    Processes write bytecode, whatever this one was told: without it Lapse's modules are compiled
    at each start, and those of installed packages are not.
    """
    places = (str(source or ""), str(BENCH.parent), os.environ.get("PYTHONPATH", ""))
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, places))}


_NOT_PASSED_ON = {"PYTHONDONTWRITEBYTECODE"}


def answer_requests(handle: Callable[[Request], Awaitable[Answer]]) -> None:
    """Answer each line on standard input, on one event loop, until there are no more.

    uvloop, for every peer alike: it is what both servers run on.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            answer = runner.run(_awaited(handle(json.loads(line))))
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def freeze() -> None:
    """Leave what a worker has loaded out of all later garbage collections, as `lapse serve` does.

    A full collection passes over the quarter of a million objects of ADK's modules; it would stop
    all callers of a peer for a tenth of a second, whenever it comes.
    """
    gc.collect()
    gc.freeze()


async def _awaited(awaitable: Awaitable[Answer]) -> Answer:
    return await awaitable


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
