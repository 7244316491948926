"""A throw-away `lapse serve` in a process of its own, with a throw-away store."""

from __future__ import annotations

import asyncio
import os
import re
import signal
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


_MANY_RUNS: Final = {"LAPSE_RUNS_PER_USER": "1000", "LAPSE_RUNS_PER_PROCESS": "1000"}
"""One user of a scenario sends as many messages at once."""


class Server:
    """A server and its store in a temporary folder; a context manager that removes both.

    Args:
        settings: environment variables of the server, added to those of this process.

    Attributes:
        store: the path of the store's file.
        url: the server's base URL, once it has started.
    """

    def __init__(self, **settings: str) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="lapse-verify-")
        self._folder = Path(self._scratch.name)
        self._log = self._folder / "server.log"
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self.store = self._folder / "verify.db"
        self.url = ""

    async def __aenter__(self) -> Self:
        """Return the server; the caller starts it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill the server and remove its folder."""
        await self.kill()
        self._scratch.cleanup()

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
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lapse.cli", "serve", "--port", "0"),
                *("--store", f"sqlite:///{self.store}"),
                cwd=self._folder,
                env={**os.environ, **_MANY_RUNS, **self._settings},
                stdin=asyncio.subprocess.DEVNULL,
                stderr=log,
            )
        async with asyncio.timeout(_START.total_seconds()):
            while not (found := _URL.search(self.log)):
                if self._process.returncode is not None:
                    raise RuntimeError(f"the server exited before it listened:\n{self.log}")
                await asyncio.sleep(0.02)
        self.url = found[1]

    async def kill(self) -> None:
        """Kill the server with SIGKILL, and return once it has exited."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> timedelta:
        """Send SIGTERM, and return how long the server took to exit."""
        began = time.monotonic()
        await self._end(signal.SIGTERM)
        return timedelta(seconds=time.monotonic() - began)

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), _EXIT.total_seconds())
        except TimeoutError:
            process.kill()
            await process.wait()
