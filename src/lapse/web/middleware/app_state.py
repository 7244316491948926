"""The middleware that refuses requests which set app state without being allowed to."""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.private.wire import live_state
from lapse.auth.app_state import AppStateBy, may_set_app_state, refuse_app_state
from lapse.core.errors import InvalidValueError
from lapse.core.request import fields_of
from lapse.limits.live import serve_checked

_LIVE_FIELD: Final = "state_delta"


class AppStateMiddleware:
    """Refuses a request that sets app state, if its caller may not.

    The answer is 400; a WebSocket is closed with 1008. Both name the field and the key, and nothing
    is stored. It comes after the middleware that finds out who asks and reads the body.

    Args:
        app: what the request is passed on to.
        by: who sets app state where nobody is authenticated.
    """

    def __init__(self, app: ASGIApp, *, by: AppStateBy) -> None:
        self._app = app
        self._by = by

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; of a WebSocket, each message."""
        if scope["type"] not in {"http", "websocket"} or may_set_app_state(self._by):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await serve_checked(self._app, scope, receive, send, _refusal_of_live)
        else:
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            refuse_app_state(fields_of(scope))
        except InvalidValueError as error:
            await JSONResponse({"detail": str(error)}, 400)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _refusal_of_live(text: str) -> str | None:
    """Return why a message to `/run_live` is refused; None if it sets no app state."""
    # Most messages are sound in base64. Only a backslash could write the field's name otherwise.
    if _LIVE_FIELD in text or "\\" in text:
        try:
            refuse_app_state({_LIVE_FIELD: live_state(text)})
        except InvalidValueError as error:
            return str(error)
    return None
