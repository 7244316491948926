"""The middleware that measures the messages of `/run_live`, as bodies of other routes are."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.core.request import route_path
from lapse.limits.documents import read_document
from lapse.limits.rules import LIVE, SMALL_BODY, Bounds, Fault, fault_of_document

_POLICY_VIOLATION: Final = 1008


class LiveMessageMiddleware:
    """Closes a WebSocket of `/run_live` with 1008 if a message exceeds the bounds of JSON.

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
        if scope["type"] == "websocket" and route_path(scope) == LIVE:
            await self._measured(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _measured(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_closed = False

        async def measured() -> Message:
            nonlocal is_closed
            message = await receive()
            text = message.get("text") or ""
            fault = (
                self._fault_of(text)
                if len(text) <= SMALL_BODY
                else await asyncio.to_thread(self._fault_of, text)
            )
            if fault is None:
                return message
            is_closed = True
            close = {"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": fault.detail}
            await send(close)
            return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}

        async def unless_closed(message: Message) -> None:
            if not is_closed:
                await send(message)

        await self._app(scope, measured, unless_closed)

    def _fault_of(self, text: str) -> Fault | None:
        if not text:
            return None
        body = read_document(text.encode(errors="surrogatepass"))
        if isinstance(body, Fault):
            return body
        return None if body.error is not None else fault_of_document(LIVE, body, self._bounds)
