"""The sockets of `/run_live`: how many a user may have open."""

from __future__ import annotations

from collections import Counter
from typing import Final

from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_PATH: Final = "/run_live"
_TRY_AGAIN: Final = 1013
"""The code that closes a WebSocket where the server cannot answer its handshake."""


class LiveInFront:
    """Refuses a socket of `/run_live` with 429 while its user has as many as are allowed.

    A user's sockets are counted over all apps, in one process. One counts until its connection is
    closed. It stands behind the gate, so that the user is who asks, or whom a service acts for.
    """

    def __init__(self, app: ASGIApp, *, per_user: int) -> None:
        self._app = app
        self._per_user = per_user
        self._open = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "websocket" or scope["path"] != _PATH:
            await self._app(scope, receive, send)
            return
        # Of a name that comes twice the last counts, as for ADK.
        user_id = dict(QueryParams(scope["query_string"])).get("user_id", "")
        if self._open[user_id] >= self._per_user:
            await self._refuse(scope, receive, send)
            return
        self._open[user_id] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = (
            f"this user has {self._per_user} sockets of {_PATH} open already, and more are not "
            "allowed; close one first"
        )
        if "websocket.http.response" in scope.get("extensions", {}):
            await JSONResponse({"detail": told}, 429)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": _TRY_AGAIN, "reason": told})
