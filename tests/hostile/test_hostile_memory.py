"""All bodies together, while they arrive."""

from __future__ import annotations

import asyncio

from lapse.bounds import Bounds
from lapse.web.bounds import BoundsInFront


async def echo(scope, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def test_no_more_is_taken_in_than_all_bodies_may_have_together():
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
