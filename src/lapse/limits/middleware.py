"""The ASGI layer in front of everything: nothing is parsed before it has been measured."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Final
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.limits.rules import Bounds, Fault, fault_of_head, fault_of_json

_LINGER: Final = timedelta(seconds=2)
"""How long the rest of a refused body is read: closed at once, the client might see no answer."""

_POLICY_VIOLATION: Final = 1008


class BoundsInFront:
    """Refuses what is too large, too deep, too slow or not text, with ADK's `{"detail": …}`.

    A body is taken in whole, measured, and passed on. The connection of a refused one is
    closed, so that its rest is never taken for a request.
    """

    def __init__(self, app: ASGIApp, bounds: Bounds = Bounds()) -> None:
        self._app = app
        self._bounds = bounds
        self._arriving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on once it has been found acceptable."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        path = scope.get("raw_path") or quote(scope["path"], errors="surrogateescape").encode()
        fault = fault_of_head(path, scope["query_string"], scope["headers"])
        if not scope["path"].isascii():
            # ADK rewrites it, where it has a default app, and can in Latin letters only.
            scope = {name: value for name, value in scope.items() if name != "raw_path"}
        if scope["type"] == "websocket":
            if fault is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        length = _declared(scope)
        largest = self._bounds.largest(scope["method"], scope["path"])
        if fault is None and length is not None and length > largest:
            fault = _too_large(largest)
        if fault is not None:
            await _refuse(fault, receive if length != 0 else None, send)
        elif length == 0:
            await self._app(scope, receive, send)
        else:
            await self._with_body(scope, receive, send, largest)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, largest: int) -> None:
        body = bytearray()
        fault: Fault | None = None
        more = True
        try:
            async with asyncio.timeout(self._bounds.body_time.total_seconds()):
                while more and fault is None:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    chunk = message.get("body", b"")
                    more = message.get("more_body", False)
                    body += chunk
                    self._arriving += len(chunk)
                    fault = self._over(len(body), largest)
        except TimeoutError:
            seconds = self._bounds.body_time.total_seconds()
            fault = Fault(408, f"body: did not arrive within {seconds:g} seconds")
            await _refuse(fault, None, send)
            return
        finally:
            self._arriving -= len(body)
        if fault is not None:
            body.clear()
            await _refuse(fault, receive if more else None, send)
            return
        whole = bytes(body)
        body.clear()
        fault = self._fault_of(scope, whole)
        if fault is not None:
            # All of it has arrived: the connection may stay.
            await _answer(fault, send)
            return
        await self._app(scope, _replay(whole, receive), send)

    def _over(self, size: int, largest: int) -> Fault | None:
        if size > largest:
            return _too_large(largest)
        if self._arriving > self._bounds.bodies:
            return Fault(503, "too many large requests are arriving; try again in a moment")
        return None

    def _fault_of(self, scope: Scope, body: bytes) -> Fault | None:
        kind = dict(scope["headers"]).get(b"content-type", b"")
        if kind.lower().startswith(b"multipart/"):
            return None
        return fault_of_json(scope["path"], body, self._bounds)


def _declared(scope: Scope) -> int | None:
    """Return how long the body says it is; None where it does not say."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return None
    try:
        return int(headers.get(b"content-length", b"0"))
    except ValueError:
        return None


def _too_large(largest: int) -> Fault:
    return Fault(413, f"body: must be at most {largest} bytes here")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once, and then what else comes."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


async def _refuse(fault: Fault, rest: Receive | None, send: Send) -> None:
    """Answer, read what is still coming for a moment, and have the connection closed."""
    await _answer(fault, send, close=True, ended=False)
    try:
        async with asyncio.timeout(_LINGER.total_seconds()):
            more = rest is not None
            while more and rest is not None:
                message = await rest()
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _answer(fault: Fault, send: Send, *, close: bool = False, ended: bool = True) -> None:
    body = json.dumps({"detail": fault.detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if close:
        headers.append((b"connection", b"close"))
    if fault.status == 503:  # noqa: PLR2004 - an HTTP status
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": not ended})
