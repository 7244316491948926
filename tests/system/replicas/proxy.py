"""A proxy before PostgreSQL's socket that loses answers when it is told to."""

import asyncio
import contextlib
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Passes everything on until it is armed; then it keeps the next answer and hangs up.

    While `open` is not set, it takes no new connection.
    """

    def __init__(self, folder):
        self._target = str(Path(folder) / SOCKET)
        self._armed = False
        self._writers = set()
        self.lost = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    def arm(self):
        """Lose the next answer: the statement is done, and its sender gets no answer."""
        self._armed = True
        self.lost.clear()

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
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _answer(self, reader, writer):
        while data := await reader.read(1 << 16):
            if self._armed:
                self._armed = False
                self.lost.set()
                break
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
    with TemporaryDirectory(prefix="lapse-proxy-") as here:
        server = await asyncio.start_unix_server(proxy.serve, Path(here) / SOCKET)
        try:
            yield proxy, url.replace(folder, here)
        finally:
            server.close()
            proxy.hang_up()
