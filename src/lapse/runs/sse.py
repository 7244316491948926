"""Sends server-sent events to one connection and closes it if the client is too slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lapse.runs.stream import LaggedError

_WRITE_TIMEOUT: Final = timedelta(seconds=30)
"""How long one write may take before the connection is closed."""

_RETRY: Final = b"retry: 1000\n\n"


class EventStream(Response):
    """A response that sends chunks as they come, until they end or the client disconnects.

    Each chunk is written unchanged; nothing is buffered for a client that does not read.
    """

    media_type = "text/event-stream"

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None
    ) -> None:
        kept = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | dict(headers or {})
        super().__init__(headers=kept)
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; raise what the chunks raise, unless the client has disconnected."""
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait({sending, leaving})
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send(self, send: Send) -> None:
        timeout = _WRITE_TIMEOUT.total_seconds()
        try:
            await send({"type": "http.response.body", "body": _RETRY, "more_body": True})
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    async with asyncio.timeout(timeout):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except LaggedError:
            # End the response in good order; the client resumes after the last id it had.
            pass
        except TimeoutError:
            return
        async with asyncio.timeout(timeout):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
