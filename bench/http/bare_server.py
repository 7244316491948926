"""A server that does nothing but answer: what the load generator can reach at most."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

_ANSWER = b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"id": "x"}'


class Bare(asyncio.Protocol):
    """Answers whatever comes; the requests are small enough to come in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, _data: bytes) -> None:
        self._transport.write(_ANSWER)


async def main(port: int) -> None:
    """Serve until stopped."""
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
