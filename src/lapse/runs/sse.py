"""Sends server-sent events to one connection and closes it if the client is too slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lapse.limits.unread import let_go_of
from lapse.runs.stream import LaggedError

_WRITE_TIMEOUT: Final = timedelta(seconds=30)
"""How long one write may take, where the server has no limit of its own for it."""

_RETRY: Final = b"retry: 1000\n\n"


class EventStream(Response):
    """A response that sends chunks as they come, until they end or the client disconnects.

    Each chunk is written unchanged; nothing is buffered for a client that does not read.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        headers: Mapping[str, str] | None = None,
        *,
        first: bytes = _RETRY,
    ) -> None:
        kept = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | dict(headers or {})
        super().__init__(headers=kept)
        del self.headers["content-length"]
        self._chunks = chunks
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; raise what the chunks raise, unless the client has disconnected."""
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        # A server that lets slow readers go can tell slow ones from those that read nothing.
        limit = _WRITE_TIMEOUT.total_seconds() if let_go_of(scope) is None else None
        sending = asyncio.create_task(self._send(send, limit))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait({sending, leaving})
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send(self, send: Send, limit: float | None) -> None:
        async def write(body: bytes, *, more: bool = True) -> None:
            async with asyncio.timeout(limit):
                await send({"type": "http.response.body", "body": body, "more_body": more})

        try:
            try:
                await write(self._first)
                async with aclosing(self._chunks) as chunks:
                    async for chunk in chunks:
                        await write(chunk)
            except LaggedError:
                # End the response in good order; the client resumes after the last id it had.
                pass
            await write(b"", more=False)
        except TimeoutError:
            return


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
