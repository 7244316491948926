"""The messages of `/run_live`: measured, as the bodies of other routes are, and checked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.core.request import route_path
from lapse.limits.documents import read_document
from lapse.limits.rules import (
    LIVE,
    SMALL_BODY,
    Bounds,
    Fault,
    fault_of_document,
    fault_of_live_query,
)

_POLICY_VIOLATION: Final = 1008

_LONGEST_REASON: Final = 123
"""Bytes of the reason that a WebSocket is closed with (RFC 6455)."""

Check = Callable[[str], Awaitable[str | None]]
"""Returns why the text of a message is refused; None if it is not."""


async def serve_checked(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, check: Check
) -> None:
    """Serve a WebSocket; close it with 1008 and the reason at the first message that is refused."""
    is_closed = False

    async def checked() -> Message:
        nonlocal is_closed
        message = await receive()
        text = message.get("text") or ""
        refusal = await check(text) if text else None
        if refusal is None:
            return message
        is_closed = True
        await _close(send, refusal)
        return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}

    async def unless_closed(message: Message) -> None:
        if not is_closed:
            await send(message)

    await app(scope, checked, unless_closed)


async def _close(send: Send, refusal: str) -> None:
    reason = refusal.encode()[:_LONGEST_REASON].decode(errors="ignore")
    await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})


class LiveMessageMiddleware:
    """Closes a WebSocket of `/run_live` with 1008 if its ids or a message are not within bounds.

    ADK parses each message in the event loop. The server bounds the size of a message.

    Args:
        app: the next layer.
        bounds: the bounds that the settings choose.
    """

    def __init__(self, app: ASGIApp, *, bounds: Bounds = Bounds()) -> None:
        self._app = app
        self._bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; of a WebSocket, each message."""
        if scope["type"] != "websocket" or route_path(scope) != LIVE:
            await self._app(scope, receive, send)
        elif fault := fault_of_live_query(scope["query_string"]):
            await _close(send, fault.detail)
        else:
            await serve_checked(self._app, scope, receive, send, self._check)

    async def _check(self, text: str) -> str | None:
        if len(text) <= SMALL_BODY:
            fault = self._fault_of(text)
        else:
            fault = await asyncio.to_thread(self._fault_of, text)
        return None if fault is None else fault.detail

    def _fault_of(self, text: str) -> Fault | None:
        body = read_document(text.encode(errors="surrogatepass"))
        if isinstance(body, Fault):
            return body
        return None if body.error is not None else fault_of_document(LIVE, body, self._bounds)
