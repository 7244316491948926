"""The outermost middleware: it checks a request's head, and answers before a body safely."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Final
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.core.request import keeping_slashes
from lapse.limits.rules import Fault, fault_of_head

_LINGER: Final = timedelta(seconds=2)
"""How long the rest of a body is read and dropped. If the connection were closed at once, the
client might not see the answer."""

_GAP: Final = timedelta(milliseconds=500)
"""How long a pause in the rest of a body ends the wait for it."""

_POLICY_VIOLATION: Final = 1008


class HeadMiddleware:
    """Refuses a head that is too large or ambiguous, before any other layer reads it.

    If another layer answers before the body has arrived, this one closes the connection after the
    answer, so that the rest of the body is never taken for a request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with ADK's `{"detail": …}`."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        path = scope.get("raw_path") or quote(scope["path"], errors="surrogateescape").encode()
        fault = fault_of_head(path, scope["query_string"], scope["headers"])
        if fault is None:
            scope = dict(keeping_slashes(scope)) if b"%2" in path else scope
        if not scope["path"].isascii():
            # ADK rewrites it, where it has a default app, and can in Latin letters only.
            scope = {name: value for name, value in scope.items() if name != "raw_path"}
        if scope["type"] == "websocket":
            if fault is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if length_of(scope["headers"]) != 0:
            arriving = _Arriving(scope, receive, send)
            receive, send = arriving.receive, arriving.send
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await answer(fault, send)


def length_of(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the length of a body that its head states; 0 for no body, None if it is not stated."""
    length: int | None = 0
    for name, value in headers:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            try:
                length = int(value)
            except ValueError:
                length = None
    return length


async def answer(fault: Fault, send: Send) -> None:
    """Answer a request with a fault, as ADK answers."""
    body = json.dumps({"detail": fault.detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if fault.status in {429, 503}:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class _Arriving:
    """A request whose body may not have arrived when it is answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_here = False
        self._closing = False

    async def receive(self) -> Message:
        """Receive a message, and note the end of the body."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._is_here = True
        return message

    async def send(self, message: Message) -> None:
        """Send a message; close the connection if the body has not arrived."""
        if self._is_here:
            await self._send(message)
        elif message["type"] == "http.response.start":
            await self._look()
            if not self._is_here:
                self._closing = True
                kept = [pair for pair in message.get("headers", ()) if pair[0] != b"connection"]
                message = {**message, "headers": [*kept, (b"connection", b"close")]}
            await self._send(message)
        elif self._closing and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drop_the_rest()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    async def _look(self) -> None:
        """Receive what has arrived already, without waiting."""
        if any(name == b"expect" for name, _ in self._scope["headers"]):
            # The client waits for `100 Continue`, which a call of `receive` would send.
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                while not self._is_here:
                    await self.receive()

    async def _drop_the_rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER.total_seconds()):
                while not self._is_here:
                    async with asyncio.timeout(_GAP.total_seconds()):
                        await self.receive()
