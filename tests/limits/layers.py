"""ASGI requests to one layer, chunk by chunk, without a server."""

from __future__ import annotations

import asyncio
import json

from lapse.limits import rules

MIB = rules.MIB
LARGE = rules.SMALL_BODY + 1


class Asked:
    """A request whose body arrives as the test says, and what was answered."""

    def __init__(self, layer, *, path="/x", kind="application/json", method="POST", headers=()):
        self.chunks = asyncio.Queue()
        self.sent = []
        self.received = 0
        head = [(b"transfer-encoding", b"chunked"), (b"content-type", kind.encode()), *headers]
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": head,
        }
        self.task = asyncio.create_task(layer(self.scope, self._receive, self._send))

    def arrive(self, data, *, more=True):
        self.chunks.put_nowait({"type": "http.request", "body": data, "more_body": more})

    async def _receive(self):
        chunk = await self.chunks.get()
        self.received += 1
        return chunk

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.received_before_answer = self.received
        self.sent.append(message)

    async def settled(self):
        """Let everything happen that needs no more of the body, threads included."""

        def is_at_work():
            return not self.task.done() and (self.chunks.qsize() or not self.chunks._getters)

        while is_at_work():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)

    async def answer(self):
        async with asyncio.timeout(20):
            await self.task
        body = b"".join(one.get("body", b"") for one in self.sent[1:])
        return self.sent[0]["status"], json.loads(body) if body else None

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])


async def asked(layer, body, **more):
    """Send a whole body and return the status and the answer."""
    request = Asked(layer, **more)
    request.arrive(body, more=False)
    return await request.answer()
