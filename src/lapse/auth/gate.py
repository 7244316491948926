"""Two middleware that check the caller: by the head of a request, and then by its body.

The body is read between them, so a caller who is refused by the head has no byte of it read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.auth.access import Access, Reach, access_to
from lapse.auth.authenticator import Authentication
from lapse.auth.options import NotAuthenticatedError
from lapse.auth.origins import is_own_origin
from lapse.auth.principals import Principal, Role, acting, current_principal
from lapse.core.errors import LapseError
from lapse.core.keys import SessionKey
from lapse.core.request import fields_of, route_path, tell_known

NOBODY: Final = Principal("")
"""Acts where anybody may: it has nothing, for no user has an empty id."""

_NO_USER: Final = "\x7f"
"""A user id that nobody has: no principal's name holds a control character."""

_ACCESS: Final = "lapse.access"
"""Where a request's scope has who may call its path."""

AUTHENTICATED: Final = "lapse.authenticated"
"""Where a request's scope has who asks, or the error that says why nobody is known, if another
middleware has found it out. It must have been a request that no page can forge."""

_USER_FIELDS: Final = ("userId", "user_id")
_POLICY_VIOLATION: Final = 1008
_NOT_FOUND: Final = "Session not found"
_SAFE: Final = {"GET", "HEAD", "OPTIONS"}


class CallerMiddleware:
    """Finds out from a request's head who asks, and refuses what they may not ask for.

    It comes after CORS and the checks of Host and Origin, so that a page may read a refusal, and
    before the body is read. In the next layers `current_principal` is the caller, for the request
    and all work that it begins.

    401: nobody known asks. 403: the role is not enough for the route, which is the same for
    everybody. 404: the path or the query names another user, whether what it names exists or not.

    Args:
        app: what it lets through to.
        authentication: how callers are known, and what is open.
        look_up: reads a session's record, or raises LapseError. A foreign session is refused after
            as long as an unknown one takes, so that the time tells nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authentication: Authentication,
        look_up: Callable[[SessionKey], Awaitable[object]],
    ) -> None:
        self._app = app
        self._look_up = look_up
        self._authentication = authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        access = access_to(
            path,
            open_paths=self._authentication.open_paths,
            shared_paths=self._authentication.shared_paths,
        )
        principal: Principal | None = NOBODY
        if self._authentication.may_scrape(path, HTTPConnection(scope)):
            tell_known(scope)
        elif access.reach is not Reach.ANYBODY:
            try:
                principal = await self._principal(HTTPConnection(scope))
                tell_known(scope)
                await self._admit(principal, access, scope)
            except NotAuthenticatedError as error:
                if access.reach is not Reach.OWN_ADMISSION:
                    challenge = {"WWW-Authenticate": error.challenge}
                    await Refusal(401, str(error), challenge)(scope, receive, send)
                    return
                principal = None
            except HTTPException as refusal:
                await Refusal(refusal.status_code, refusal.detail)(scope, receive, send)
                return
        scope[_ACCESS] = access
        with acting(principal):
            await self._app(scope, receive, send)

    async def _principal(self, connection: HTTPConnection) -> Principal:
        """Return who asks.

        Raises:
            NotAuthenticatedError: nobody known, or a page of somebody else's asks by a cookie
                that the browser adds to whatever any page asks for.
        """
        found: Principal | Exception | None = connection.scope.get(AUTHENTICATED)
        if isinstance(found, Exception):
            raise found
        if found is not None:
            return found
        principal = await self._authentication.authenticator.authenticate(connection)
        if _is_forgeable(connection):
            origin = connection.headers.get("origin", "")
            allowed = self._authentication.origins
            if origin not in allowed and not is_own_origin(origin, connection):
                raise NotAuthenticatedError(
                    f"a page of another origin ({origin!r:.60}) asks in this user's name; name it "
                    "in --allow-origins, or send a bearer token",
                    'Bearer realm="lapse"',
                )
        return principal

    async def _admit(self, principal: Principal, access: Access, scope: Scope) -> None:
        """Check that a principal may make a request, as far as its head tells.

        Raises:
            HTTPException: they may not.
        """
        role, reach = principal.role, access.reach
        if role is Role.USER and reach in {Reach.SERVICES, Reach.OPERATORS}:
            raise HTTPException(403, "users may not call this; ask as a service or an operator")
        if role is Role.SERVICE and reach is Reach.OPERATORS:
            raise HTTPException(403, "only operators may call this; ask as one")
        named: Iterable[Any] = ()
        if reach is Reach.OWNER:
            named = [access.user_id]
        elif reach is Reach.OWNER_IN_QUERY:
            query = QueryParams(scope["query_string"])
            named = [value for name in _USER_FIELDS for value in query.getlist(name)]
        if not _may_act_for_all(principal, named):
            await self._look_for_nothing(access)
            raise HTTPException(404, _NOT_FOUND)

    async def _look_for_nothing(self, access: Access) -> None:
        """Take the time that looking for an unknown session takes."""
        if access.session_id:
            key = SessionKey(access.app_name, _NO_USER, access.session_id)
            with suppress(LapseError):
                await self._look_up(key)


class OwnershipMiddleware:
    """Refuses a request whose body names another user: 404, whether the session exists or not.

    It comes after `CallerMiddleware` and after the body has been read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        access: Access | None = scope.get(_ACCESS)
        principal = current_principal()
        if (
            access is not None
            and access.reach is Reach.OWNER_IN_BODY
            and principal is not None
            and scope["type"] == "http"
        ):
            fields = fields_of(scope)
            named = [fields[name] for name in _USER_FIELDS if name in fields]
            if not _may_act_for_all(principal, named):
                await Refusal(404, _NOT_FOUND)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _may_act_for_all(principal: Principal, named: Iterable[Any]) -> bool:
    """Return whether a principal may act for each user that a request names.

    If a request names two users, the principal must be allowed to act for both, because layers
    differ in which one they read. A value that is no text names nobody; the route refuses it.
    """
    return all(principal.may_act_for(one) for one in named if isinstance(one, str))


def _is_forgeable(connection: HTTPConnection) -> bool:
    """Return whether any page could have a browser make this request in its user's name.

    What only reads is of no use to a page that may not read the answer. A bearer token is
    nothing that a browser adds by itself, as it does cookies and passwords.
    """
    if connection.scope["type"] == "http" and connection.scope["method"] in _SAFE:
        return False
    if connection.headers.get("authorization", "").lower().startswith("bearer "):
        return False
    return "origin" in connection.headers or "cookie" in connection.headers


class Refusal:
    """An answer as ADK's routes give it to errors; a WebSocket is answered so, not accepted."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self._response = JSONResponse({"detail": detail}, status, headers)
        self._detail = detail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
            await self._response(scope, receive, send)
        else:
            close = {"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": self._detail}
            await send(close)
