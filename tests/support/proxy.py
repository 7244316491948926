"""A proxy before PostgreSQL's socket that loses answers when it is told to."""

import asyncio
import contextlib
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import scratch

SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Passes everything on until it is armed; then it keeps an answer and hangs up.

    While `open` is not set, it takes no new connection. While `speaks` is not set, it passes
    nothing on, and keeps all connections.

    Attributes:
        answers: how many answers it has passed on.
        asked: set when somebody asks while it does not speak.
    """

    def __init__(self, folder):
        self._target = str(Path(folder) / SOCKET)
        self._loses = None
        self._writers = set()
        self.answers = 0
        self.lost = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.asked = asyncio.Event()

    def arm(self, after=0):
        """Lose the answer after so many others: its statement is done, its sender hears nothing."""
        self._loses = self.answers + after
        self.lost.clear()

    def disarm(self):
        self._loses = None

    async def serve(self, reader, writer):
        if not self.open.is_set():
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, server_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, server_writer))
                group.create_task(self._answer(server_reader, writer))
        except* (ConnectionError, EOFError):
            pass
        finally:
            for one in (writer, server_writer):
                one.close()
                with contextlib.suppress(ConnectionError):
                    await one.wait_closed()

    async def _pass(self, reader, writer):
        while data := await reader.read(1 << 16):
            if not self.speaks.is_set():
                self.asked.set()
                await self.speaks.wait()
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _answer(self, reader, writer):
        while data := await reader.read(1 << 16):
            await self.speaks.wait()
            if self._loses == self.answers:
                self._loses = None
                self.lost.set()
                break
            self.answers += 1
            writer.write(data)
            await writer.drain()
        raise EOFError

    def hang_up(self):
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def proxied(url):
    """Yield a proxy before a database's server, and the URL that leads through it."""
    folder = url.partition("host=")[2]
    proxy = Proxy(folder)
    with TemporaryDirectory(dir=scratch.once("sockets")) as here:
        server = await asyncio.start_unix_server(proxy.serve, Path(here) / SOCKET)
        try:
            yield proxy, url.replace(folder, here)
        finally:
            server.close()
            proxy.hang_up()
