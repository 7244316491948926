"""What is bounded for all together: connections."""

from __future__ import annotations

import asyncio

import uvicorn

from lapse.limits.protocol import bounded
from lapse.limits.rules import Bounds


async def echo(scope, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return (await reader.readuntil(b"\r\n"))[9:12], reader, writer


async def test_over_the_limit_the_connection_that_was_idle_longest_is_closed():
    """Broken on purpose: without the limit the first one is never closed."""
    protocol = bounded(Bounds(connections=5))
    server = uvicorn.Server(
        uvicorn.Config(
            echo, port=0, http=protocol, lifespan="off", log_config=None, timeout_keep_alive=600
        )
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    asked = [await ask(port) for _ in range(8)]
    assert [status for status, _, _ in asked] == [b"200"] * 8
    async with asyncio.timeout(20):
        for _, reader, _ in asked[:3]:
            await reader.read()
        strangers, users = protocol.idle
        assert (len(strangers), len(users)) == (5, 0)
    for _, _, writer in asked:
        writer.close()
    server.should_exit = True
    await serving
