"""Middleware that records what services and operators ask for in a user's name."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.audit.request import one_request
from lapse.audit.store import AuditLog
from lapse.auth.principals import current_deputy
from lapse.core.errors import StoreUnavailableError
from lapse.core.keys import SessionKey, can_exist
from lapse.core.request import parts_of, route_path
from lapse.store.database import Database
from lapse.web.errors import unavailable_answer

_CONNECTIONS: Final = {"http", "websocket"}


class ActsMiddleware:
    """Records acts of services and operators that are no change in the store.

    These are changes of artifacts, which live elsewhere, and cancellations of runs. The record is
    written before the act, so there is no such act without a record; a record may stand for an act
    that was then refused. What changes a session in the store is recorded with the change, of one
    request once.

    It stands behind the gate, which says who asks.
    """

    def __init__(self, app: ASGIApp, *, store: Database) -> None:
        self._app = app
        self._acts = AuditLog(store)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, recorded if a service or an operator sends it."""
        by = current_deputy()
        if by is None or scope["type"] not in _CONNECTIONS:
            await self._app(scope, receive, send)
            return
        action, key = _act(scope) if scope["type"] == "http" else _NO_ACT
        if action and can_exist(key):
            try:
                await self._acts.record_act(by, action, {}, key=key)
            except StoreUnavailableError as error:
                await unavailable_answer(error, scope)(scope, receive, send)
                return
        with one_request():
            await self._app(scope, receive, send)


_NO_ACT: Final = ("", SessionKey("", "", ""))


def _act(scope: Scope) -> tuple[str, SessionKey]:
    """Return what a request is about to do, and to which session; an empty action for no act."""
    match scope["method"], parts_of(route_path(scope)):
        case "DELETE", ["", "apps", app, "users", user, "sessions", session, "artifacts", _, *_]:
            return "artifact_deleted", SessionKey(app, user, session)
        case "POST", ["", "apps", app, "users", user, "sessions", session, "artifacts"]:
            return "artifact_saved", SessionKey(app, user, session)
        case "DELETE", ["", "apps", app, "users", user, "sessions", session, "run", _]:
            return "run_cancelled", SessionKey(app, user, session.strip())
    return _NO_ACT
