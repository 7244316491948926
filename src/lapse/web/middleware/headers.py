"""What answers tell browsers: what pages of other origins may read, and what an answer is."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_PAGE: Final = "frame-ancestors 'self'; base-uri 'self'; object-src 'none'"
_DATA: Final = "default-src 'none'; frame-ancestors 'none'"
_EXPOSED: Final = ("Lapse-Run", "Retry-After", "WWW-Authenticate")
"""The headers of Lapse's answers that a page needs and that browsers keep from other origins."""

_KEPT_NOWHERE: Final = ("application/json", "text/event-stream")


class SafeHeaders:
    """Adds those of the safe headers that an answer does not set itself."""

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


class ExposedHeaders:
    """Lets pages of other origins read the headers of Lapse's answers that a page needs.

    Whether such a page may read an answer at all is for CORS to say; without its permission this
    header means nothing. It stands around the application's own CORS and keeps what that exposes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not any(name == b"origin" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return

        async def exposing(message: Message) -> None:
            if message["type"] == "http.response.start":
                _expose(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, exposing)


def _expose(headers: MutableHeaders) -> None:
    given = headers.get("access-control-expose-headers", "")
    named = [name for name in map(str.strip, given.split(",")) if name]
    known = {name.lower() for name in named}
    named += [name for name in _EXPOSED if name.lower() not in known]
    headers["Access-Control-Expose-Headers"] = ", ".join(named)
