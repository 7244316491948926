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
        questions: how many questions it has passed on.
        struck: how many answers and questions it has disturbed.
        delay: how many seconds the next answer takes, if it is set to a function.
        asked: set when somebody asks while it does not speak.
    """

    def __init__(self, folder):
        self._target = str(Path(folder) / SOCKET)
        self._loses = None
        self._falls_silent = None
        self._cuts = None
        self._swallows = None
        self._writers = set()
        self._clients = set()
        self._serving = set()
        self.answers = 0
        self.questions = 0
        self.struck = 0
        self.delay = None
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

    def fall_silent(self, after=0):
        """Speak no more once so many other answers were passed on; `asked` is set then."""
        self._falls_silent = self.answers + after

    def cut(self, after=0):
        """Hang up at the question after so many others: nobody hears it."""
        self._cuts = self.questions + after

    def swallow(self, after=0):
        """Pass no answer on any more after so many, on the connections that there are then."""
        self._swallows = self.answers + after

    def calm(self):
        """Disturb nothing any more."""
        self._loses = self._falls_silent = self._cuts = self._swallows = self.delay = None
        self.speaks.set()

    def disarm(self):
        self._loses = None

    async def serve(self, reader, writer):
        serving = asyncio.current_task()
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        if not self.open.is_set():
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, server_writer}
        self._clients.add(writer)
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
            if self._cuts == self.questions:
                self._cuts = None
                self.struck += 1
                break
            self.questions += 1
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _answer(self, reader, writer):
        while data := await reader.read(1 << 16):
            if self._falls_silent == self.answers:
                self._falls_silent = None
                self.speaks.clear()
                self.struck += 1
                self.asked.set()
            await self.speaks.wait()
            if self._loses == self.answers:
                self._loses = None
                self.struck += 1
                self.lost.set()
                break
            if self._swallows == self.answers:
                self._swallows = None
                self.struck += 1
                while await reader.read(1 << 16):
                    pass
                break
            if self.delay is not None:
                self.struck += 1
                await asyncio.sleep(self.delay())
            self.answers += 1
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def end_sessions(self):
        """Tell each client that its session is over, as PostgreSQL does, and hang up later."""
        fields = b"".join(
            kind + value + b"\0"
            for kind, value in ((b"S", b"FATAL"), (b"C", b"57P01"), (b"M", b"ended"))
        )
        for writer in self._clients:
            writer.write(b"E" + (len(fields) + 5).to_bytes(4) + fields + b"\0")
            await writer.drain()

    def hang_up(self):
        for writer in self._writers:
            writer.close()

    async def end(self):
        """Hang up, and wait until both sides are closed: PostgreSQL lets its locks go then."""
        self.hang_up()
        await asyncio.gather(*self._serving)


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
            await proxy.end()
