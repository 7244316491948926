"""Limits for all requests together: bodies while they arrive, and connections."""

from __future__ import annotations

import asyncio

import uvicorn
from lapse.limits.middleware import BoundsInFront

from lapse.limits.protocol import bounded
from lapse.limits.rules import Bounds


async def echo(scope, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def test_all_bodies_together_take_no_more_memory_than_the_limit():
    """Broken on purpose: with the sum left out the last one is taken in like the others."""
    bounds = Bounds(body=10)
    layer = BoundsInFront(echo, bounds)
    rest = asyncio.Event()

    async def post(chunks):
        sent = []
        parts = iter(chunks)

        async def receive():
            part = next(parts, None)
            if part is None:
                await rest.wait()
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.request", "body": part, "more_body": True}

        async def send(told):
            sent.append(told)
            await asyncio.sleep(0)

        headers = [(b"transfer-encoding", b"chunked")]
        scope = {"type": "http", "method": "POST", "path": "/x", "raw_path": b"/x"}
        await layer(scope | {"query_string": b"", "headers": headers}, receive, send)
        return sent[0]["status"]

    waiting = [asyncio.create_task(post([b"x" * 10])) for _ in range(16)]
    over = asyncio.create_task(post([b"x"]))
    for _ in range(5):  # each has been given what there is, and waits for the rest
        await asyncio.sleep(0)
    rest.set()
    assert await over == 503
    assert await asyncio.gather(*waiting) == [200] * 16
    assert await post([b"x" * 10]) == 200
    assert layer._arriving == 0


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
        assert len(protocol.idle) == 5
    for _, _, writer in asked:
        writer.close()
    server.should_exit = True
    await serving
