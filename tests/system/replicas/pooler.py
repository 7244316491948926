"""A pooler in transaction mode: whoever asks gets any free connection, for one transaction.

It hands each transaction to another connection than the one before, which is the hardest that
a pooler may do to its clients.
"""

import asyncio
import contextlib
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import scratch

SOCKET = ".s.PGSQL.5432"
CONNECTIONS = 3
IDLE = b"I"


async def message(reader):
    """Read one message: its type, and the whole of it."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


class Pooler:
    """Connections to one database, lent to whoever connects here."""

    def __init__(self, socket, database):
        self._socket = socket
        self._start = b"".join(
            part.encode() + b"\0" for part in ("user", "postgres", "database", database, "")
        )
        self._lines = []
        self._turns = cycle(range(CONNECTIONS))
        self._clients = set()
        self.used = []

    async def open(self):
        for _ in range(CONNECTIONS):
            reader, writer = await asyncio.open_unix_connection(self._socket)
            body = (3 << 16).to_bytes(4) + self._start
            writer.write((len(body) + 4).to_bytes(4) + body)
            self.greeting = b""
            kind = b""
            while kind != b"Z":
                kind, whole = await message(reader)
                assert kind != b"E", whole
                self.greeting += whole
            self._lines.append((reader, writer, asyncio.Lock()))

    def close(self):
        for writer in (*self._clients, *(line[1] for line in self._lines)):
            writer.close()

    async def serve(self, reader, writer):
        self._clients.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            size = int.from_bytes(await reader.readexactly(4))
            await reader.readexactly(size - 4)
            writer.write(self.greeting)
            answering = None
            while True:
                kind, whole = await message(reader)
                if kind == b"X":
                    break
                if answering is None or answering.done():
                    number = next(self._turns)
                    self.used.append(number)
                    server_reader, server_writer, lock = self._lines[number]
                    await lock.acquire()
                    answering = asyncio.create_task(self._answer(server_reader, writer, lock))
                server_writer.write(whole)
        writer.close()

    async def _answer(self, server_reader, writer, lock):
        """Pass answers on until the transaction is over, and take the connection back."""
        kind = whole = b""
        while (kind, whole[-1:]) != (b"Z", IDLE):
            writer.write(whole)
            kind, whole = await message(server_reader)
        lock.release()
        writer.write(whole)


@asynccontextmanager
async def pooled(url):
    """Yield the URL of a database behind the pooler, and which connections it has lent."""
    folder = url.partition("host=")[2]
    pooler = Pooler(str(Path(folder) / SOCKET), url.partition("@/")[2].partition("?")[0])
    await pooler.open()
    with TemporaryDirectory(dir=scratch.once("sockets")) as here:
        server = await asyncio.start_unix_server(pooler.serve, Path(here) / SOCKET)
        try:
            yield url.replace(folder, here), pooler.used
        finally:
            server.close()
            pooler.close()
