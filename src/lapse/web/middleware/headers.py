"""What every answer tells browsers: to take it for what it says it is, and frame it nowhere."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_PAGE: Final = "frame-ancestors 'self'; base-uri 'self'; object-src 'none'"
_DATA: Final = "default-src 'none'; frame-ancestors 'none'"
_KEPT_NOWHERE: Final = ("application/json", "text/event-stream")


class SafeHeaders:
    """Adds the headers that an answer does not have of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, safe)


def _add(headers: MutableHeaders) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", _PAGE if kind == "text/html" else _DATA)
    if kind in _KEPT_NOWHERE:
        headers.setdefault("Cache-Control", "no-store")
