"""Middleware that reads from a request to ADK's routes which session it is about."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.context import observing_appends, reviving
from lapse.core.errors import RunInFlightError, StoreUnavailableError, TooManyRunsError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause
from lapse.core.messages import may_be_first
from lapse.core.request import fields_of, parts_of, route_path
from lapse.runs.detached import outlives_connection
from lapse.runs.plain import PLAIN_RUN
from lapse.runs.runs import Runs
from lapse.telemetry.logs import shortening
from lapse.web.errors import busy_answer, unavailable_answer

_RUNS: Final = {"/run", "/run_sse"}
_LIVE: Final = "/run_live"
_DEPTH: Final = "/apps/APP/users/USER/sessions/SESSION".count("/")
_TRY_AGAIN_LATER: Final = 1013


class RunSessionMiddleware:
    """Counts runs, lets them resurrect their session, and keeps session ids out of the log.

    ADK's runs read their session before they append the message that would resurrect it, so
    without this they would answer 404. A run that brings no first message, as `/run_live` when it
    connects, resurrects like a request for that, within the quotas. A run beyond the limits gets
    429, or its WebSocket is not accepted; a detached run is counted where it begins.

    ADK's PATCH of a session's state gets 409 while a run is in flight in the session, because it
    would cost the run its answer.

    Args:
        app: the next layer, which comes after the body has been read.
        runs: counts the runs that are not detached, and knows the others.
        default_app: the app of runs that name none; None: the routes refuse such runs.
    """

    def __init__(self, app: ASGIApp, *, runs: Runs, default_app: str | None = None) -> None:
        self._app = app
        self._runs = runs
        self._default_app = default_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its session known to the service and the log."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        key = self._key_of(scope, path)
        with ExitStack() as stack:
            if key is not None:
                cause = Cause.RUN if _brings_first_message(scope) else Cause.REQUEST
                stack.enter_context(reviving(key, cause=cause))
                if not outlives_connection(scope):
                    try:
                        run = stack.enter_context(self._runs.plain.run(key, path.removeprefix("/")))
                    except TooManyRunsError as error:
                        await _refuse(error, scope, receive, send)
                        return
                    scope[PLAIN_RUN] = run
                    stack.enter_context(observing_appends(key, run))
                    await self._runs.changes.ended(key)
            named = key or _key_in(path)
            if named is not None:
                stack.enter_context(shortening(named.session_id))
                if _changes_state(scope, path):
                    await self._change_state(named, scope, receive, send)
                    return
            await self._app(scope, receive, send)

    async def _change_state(
        self, key: SessionKey, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Pass a PATCH of a session's state on, unless a run is in flight in the session."""
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._runs.changes.changing(key))
            except RunInFlightError as error:
                await busy_answer(error)(scope, receive, send)
            except StoreUnavailableError as error:
                await unavailable_answer(error, scope)(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    def _key_of(self, scope: Scope, path: str) -> SessionKey | None:
        """Return the session of a run; None if the request is no run or names no session."""
        fields: Mapping[str, Any]
        if scope["type"] == "http" and scope["method"] == "POST" and path in _RUNS:
            fields = fields_of(scope)
        elif scope["type"] == "websocket" and path == _LIVE:
            # If a parameter comes twice, the last one counts, as for ADK.
            fields = dict(QueryParams(scope["query_string"]))
        else:
            return None
        app_name = fields.get("appName") or fields.get("app_name") or self._default_app
        user_id = fields.get("userId") or fields.get("user_id")
        session_id = fields.get("sessionId") or fields.get("session_id")
        if all(isinstance(part, str) for part in (app_name, user_id, session_id)):
            return SessionKey(str(app_name), str(user_id), str(session_id))
        return None


def _brings_first_message(scope: Scope) -> bool:
    """Return whether the body of a run has a message that can be the first of its session."""
    fields = fields_of(scope)
    if fields.get("invocationId") or fields.get("invocation_id"):
        return False  # it continues an invocation, which a session without events does not have
    return may_be_first(fields.get("newMessage") or fields.get("new_message"))


async def _refuse(error: TooManyRunsError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        headers = {"Retry-After": "1"}
        await JSONResponse({"detail": str(error)}, 429, headers)(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": str(error)})


def _key_in(path: str) -> SessionKey | None:
    """Return the session of a path `/apps/…/users/…/sessions/ID…`; None if it names none."""
    match parts_of(path):
        case ["", "apps", app_name, "users", user_id, "sessions", session_id, *_] if session_id:
            return SessionKey(app_name, user_id, session_id)
        case _:
            return None


def _changes_state(scope: Scope, path: str) -> bool:
    """Return whether a request to a path with a session is ADK's PATCH of the session's state."""
    return scope["type"] == "http" and scope["method"] == "PATCH" and path.count("/") == _DEPTH
