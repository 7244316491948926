"""A throw-away `lapse serve`, in a process of its own, on a throw-away store."""

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
_EXIT: Final = timedelta(seconds=20)


class Server:
    """A server in a temporary folder, which goes with the context that it is.

    Args:
        settings: environment variables beside this process's own.

    Attributes:
        store: the file of its store.
        url: where it listens, once it has been started.
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
        """Begin; `start` is the caller's."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the server and remove its folder."""
        await self.kill()
        self._scratch.cleanup()

    @property
    def log(self) -> str:
        """Return what the server has logged so far."""
        return self._log.read_text("utf-8")

    async def start(self) -> None:
        """Start, or start again, and return when it answers.

        Raises:
            RuntimeError: it ended before it listened; the message has its log.
        """
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lapse.cli", "serve", "--port", "0"),
                *("--store", f"sqlite:///{self.store}"),
                cwd=self._folder,
                env={**os.environ, **self._settings},
                stdin=asyncio.subprocess.DEVNULL,
                stderr=log,
            )
        async with asyncio.timeout(_START.total_seconds()):
            while not (found := _URL.search(self.log)):
                if self._process.returncode is not None:
                    raise RuntimeError(f"the server ended at its start:\n{self.log}")
                await asyncio.sleep(0.02)
        self.url = found[1]

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> timedelta:
        """Ask it to end, and return how long that took."""
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
