"""Middleware that reads from a request to ADK's routes which session it is about."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final
from urllib.parse import unquote

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.context import reviving
from lapse.auth.body import parsed, read_body
from lapse.core.keys import SessionKey
from lapse.runs.detached import is_detached
from lapse.telemetry.logs import shortening

_RUNS: Final = {"/run", "/run_sse"}
_LIVE: Final = "/run_live"


class RunSessionMiddleware:
    """Lets runs resurrect their session, and keeps session ids out of the log.

    ADK's runs read their session before they append the message that would resurrect it, so
    without this they would answer 404. `on_run` is called with the app and the route of each run
    that is not detached.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        default_app: str | None = None,
        on_run: Callable[[str, str], None] = lambda _app_name, _route: None,
    ) -> None:
        self._app = app
        self._on_run = on_run
        self._default_app = default_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its session known to the service and the log."""
        key: SessionKey | None = None
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in _RUNS:
            body, receive = await read_body(receive)
            key = self._key_of(parsed(body))
        elif scope["type"] == "websocket" and scope["path"] == _LIVE:
            # If a parameter comes twice, the last one counts, as for ADK.
            key = self._key_of(dict(QueryParams(scope["query_string"])))
        with ExitStack() as stack:
            if key is not None:
                stack.enter_context(reviving(key))
                if not is_detached(scope):
                    self._on_run(key.app_name, scope["path"].removeprefix("/"))
            session_id = key.session_id if key is not None else _id_in(scope.get("path", ""))
            if session_id:
                stack.enter_context(shortening(session_id))
            await self._app(scope, receive, send)

    def _key_of(self, fields: dict[str, Any]) -> SessionKey | None:
        app_name = fields.get("appName") or fields.get("app_name") or self._default_app
        user_id = fields.get("userId") or fields.get("user_id")
        session_id = fields.get("sessionId") or fields.get("session_id")
        if all(isinstance(part, str) for part in (app_name, user_id, session_id)):
            return SessionKey(str(app_name), str(user_id), str(session_id))
        return None


def _id_in(path: str) -> str:
    """Return the session id in a path `/apps/…/users/…/sessions/ID…`, if there is one."""
    match path.split("/"):
        case ["", "apps", _, "users", _, "sessions", session_id, *_]:
            return unquote(session_id)
        case _:
            return ""
