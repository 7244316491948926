"""A log line for each request, if the operator wants them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.core.keys import SHOWN_ID

_BEFORE_AN_ID: Final = frozenset({"sessions", "session"})
_NOT_ANSWERED: Final = 0

_log = logging.getLogger("lapse.access")


class AccessLog:
    """Logs each request once its answer has been sent, with at most 8 characters of a session id.

    A line has the method, the path without its query, the status and the time it took. The status
    is 0 if no answer was begun, as where the client has left. Of a WebSocket it is 101 once it is
    accepted.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        status, began = _NOT_ANSWERED, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    status = message["status"]
                case "websocket.accept":
                    status = 101
                case "websocket.close" if status == _NOT_ANSWERED:
                    status = 403
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            facts = {
                "method": scope.get("method", "WEBSOCKET"),
                "path": shown_path(scope),
                "status": status,
                "took_ms": round((time.perf_counter() - began) * 1000, 1),
            }
            _log.info("request", extra=facts)


def shown_path(scope: Mapping[str, Any]) -> str:
    """Return a request's path with at most 8 characters of a session id.

    A slash inside the id came encoded, and only `raw_path` still tells it from one that ends it.
    """
    raw: bytes = scope.get("raw_path") or b""
    parts = [unquote(part.decode("latin-1")) for part in raw.split(b"/")]
    if "/".join(parts) != scope["path"]:
        parts = str(scope["path"]).split("/")
    for number, part in enumerate(parts[:-1]):
        if part in _BEFORE_AN_ID:
            parts[number + 1] = parts[number + 1][:SHOWN_ID]
    return "/".join(parts)
