"""A closed connection is freed at once: none waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref

import pytest
import uvicorn

from lapse.core.request import tell_known
from lapse.limits.protocol import bounded
from lapse.limits.rules import Bounds

PATIENCE = 30
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SAID = {
    "nothing": b"",
    "half a head": GET[:20],
    "a request": GET,
    "two requests": GET + GET,
    "half a body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhello",
    "too much": b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "a WebSocket": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
}


async def app(scope, receive, send):
    """Know the caller, and answer once the body is there."""
    tell_known(scope)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 100})


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("ends", ["closed", "reset"])
@pytest.mark.parametrize("said", SAID)
async def test_a_closed_connection_is_freed_without_the_garbage_collector(said, ends):
    """Seen to fail with each of the references that it lets go of, kept."""
    made = []

    class Noted(bounded(Bounds())):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(weakref.ref(self))

    config = uvicorn.Config(app, port=0, http=Noted, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    address = server.servers[0].sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with socket.socket() as client:
                client.setblocking(False)
                await loop.sock_connect(client, address)
                await loop.sock_sendall(client, SAID[said])
                if said not in {"nothing", "half a head", "half a body"}:
                    async with asyncio.timeout(PATIENCE):
                        await loop.sock_recv(client, 65536)
                if ends == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: len(made) == 3 and not server.server_state.connections)
        await until(lambda: not server.server_state.tasks)
        await until(lambda: [one() for one in made] == [None] * 3)
    finally:
        gc.enable()
        server.should_exit = True
        await serving
