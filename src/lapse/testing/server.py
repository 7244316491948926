"""A throw-away `lapse serve` in a process of its own, with a throw-away store."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess  # nosec B404
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

_URL: Final = re.compile(r"on (http://\S+)")
_START: Final = timedelta(seconds=60)
"""A server must listen within this time."""

_EXIT: Final = timedelta(seconds=20)
"""A server that has not exited within this time after its signal is killed."""

_LOOKS: Final = timedelta(milliseconds=20)
"""The time between two looks at the log of a server that starts."""

_MANY_RUNS: Final = {"LAPSE_RUNS_PER_USER": "1000", "LAPSE_RUNS_PER_PROCESS": "1000"}
"""One user of a scenario sends as many messages at once."""


class Server:
    """A server on a free port, and its store in a temporary folder.

    As a context manager it starts the server, and kills it and removes the folder at the end. As an
    asynchronous one it leaves the start to its caller, who awaits `start`.

    Args:
        agents: the folder of agents to serve; None: the demo's.
        settings: environment variables of the server, added to those of this process.

    Attributes:
        store: the path of the store's file.
        url: the server's base URL, once it has started.
    """

    def __init__(self, agents: Path | None = None, **settings: str) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="lapse-server-")
        self._folder = Path(self._scratch.name)
        self._log = self._folder / "server.log"
        self._agents = () if agents is None else (str(Path(agents).resolve()),)
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.store = self._folder / "sessions.db"
        self.url = ""

    def __enter__(self) -> Self:
        """Start the server, and return it once it listens; the errors are those of `start`."""
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the server and remove its folder."""
        self._end(signal.SIGKILL)
        self._scratch.cleanup()

    async def __aenter__(self) -> Self:
        """Return the server; the caller starts it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill the server and remove its folder."""
        await asyncio.to_thread(self.__exit__)

    @property
    def log(self) -> str:
        """Return what the server has logged so far."""
        return self._log.read_text("utf-8")

    async def start(self) -> None:
        """Start the server, also again after its end, and return once it listens.

        Raises:
            RuntimeError: the server exited before it listened; the message has its log.
            TimeoutError: it does not listen after a minute.
        """
        await asyncio.to_thread(self._begin)

    async def kill(self) -> None:
        """Kill the server with SIGKILL, and return once it has exited."""
        await asyncio.to_thread(self._end, signal.SIGKILL)

    async def stop(self) -> timedelta:
        """Send SIGTERM, and return how long the server took to exit."""
        began = time.monotonic()
        await asyncio.to_thread(self._end, signal.SIGTERM)
        return timedelta(seconds=time.monotonic() - began)

    def _begin(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 # nosec B603
                [
                    *(sys.executable, "-m", "lapse.cli", "serve", *self._agents, "--port", "0"),
                    *("--store", f"sqlite:///{self.store}"),
                ],
                cwd=self._folder,
                env={**os.environ, **_MANY_RUNS, **self._settings},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        end = time.monotonic() + _START.total_seconds()
        while not (found := _URL.search(self.log)):
            if self._process.poll() is not None:
                raise RuntimeError(f"the server exited before it listened:\n{self.log}")
            if time.monotonic() > end:
                raise TimeoutError(f"the server does not listen:\n{self.log}")
            time.sleep(_LOOKS.total_seconds())
        self.url = found[1]

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_EXIT.total_seconds())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
