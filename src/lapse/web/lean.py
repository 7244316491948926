"""Calls ADK's endpoints for plain requests, without the middleware that would only pass them on.

A page creates a session when it opens, and reads and lists sessions all the time. Some fifteen
middleware and FastAPI's handler stand before ADK's endpoint, and most have nothing to do for such
a request. `LeanSessions` does what is left of their work and calls the endpoint. It passes on every
request that a middleware would change or refuse, so each answer has one place.

`tests/web/test_web_lean.py` sends the same requests both ways and compares the answers byte for
byte.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple, cast

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.adk.agents import ServedApps
from lapse.adk.creation import is_plain_creation
from lapse.adk.private.server_routes import (
    host_check,
    is_middleware_of_server,
    origin_check,
)
from lapse.adk.private.versions import is_compared
from lapse.audit.request import one_request
from lapse.auth import Authentication, CallerMiddleware, OwnershipMiddleware
from lapse.auth.access import Reach, access_to
from lapse.auth.addresses import Network, client_address, coming_from
from lapse.auth.app_state import AppStateBy, may_set_app_state, refuse_app_state
from lapse.auth.gate import AUTHENTICATED
from lapse.auth.options import NotAuthenticatedError
from lapse.auth.principals import Principal, acting, current_deputy, current_principal
from lapse.core.errors import InvalidValueError
from lapse.core.request import Body, route_path, tell_known
from lapse.idempotency.request import NAME as IDEMPOTENCY_KEY
from lapse.limits.body import BodyMiddleware
from lapse.limits.documents import read_document
from lapse.limits.head import HeadMiddleware, length_of
from lapse.limits.live import LiveMessageMiddleware
from lapse.limits.routes import is_large
from lapse.limits.rules import SMALL_BODY, Bounds, fault_of_document, fault_of_head
from lapse.notices.routes import NoticeStreamMiddleware
from lapse.telemetry.logs import shortening
from lapse.web.endpoints import Endpoint, endpoints_of
from lapse.web.life import Life, LifeMiddleware
from lapse.web.middleware.acts import ActsMiddleware
from lapse.web.middleware.address import ClientAddressMiddleware
from lapse.web.middleware.app_state import AppStateMiddleware
from lapse.web.middleware.apps import DefaultAppMiddleware, ServedAppsMiddleware
from lapse.web.middleware.headers import ExposedHeaders
from lapse.web.middleware.session import RunSessionMiddleware
from lapse.web.middleware.telemetry import is_telemetry_read

_FAULT: Final = "lapse.fault"
"""Where a request's scope has the error that its route raises."""

_ANSWER: Final = "lapse.answer"
"""Where a request's scope has the answer to it."""

_ID: Final = "([A-Za-z0-9][A-Za-z0-9_.~-]{0,127})"
_PATH: Final = re.compile(f"/apps/{_ID}/users/{_ID}/sessions(?:/{_ID})?")

_UNUSUAL: Final = frozenset(
    {
        *(b"cookie", b"expect", b"transfer-encoding", b"upgrade"),
        *(b"traceparent", b"tracestate", b"baggage", IDEMPOTENCY_KEY),
    }
)
"""Headers for which some middleware or route does more than pass the request on."""

_PASSED: Final = frozenset[object](
    {
        *(HeadMiddleware, NoticeStreamMiddleware, ExposedHeaders, ClientAddressMiddleware),
        *(LifeMiddleware, CORSMiddleware, DefaultAppMiddleware, CallerMiddleware, BodyMiddleware),
        *(OwnershipMiddleware, ServedAppsMiddleware, LiveMessageMiddleware, AppStateMiddleware),
        *(RunSessionMiddleware, ActsMiddleware),
    }
)
"""The middleware that a plain request skips: it leaves such requests alone, or its work is done
here."""

_JSON: Final = b"application/json"
_SOON: Final = timedelta(seconds=1)


class FaultRoute(BaseRoute):
    """Raises the error of an endpoint that `LeanSessions` has called.

    So the application's own handlers answer it.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only a request that has such an error."""
        if _FAULT not in scope:
            return Match.NONE, {}
        return Match.FULL, {}

    async def handle(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Raise it."""
        raise scope.pop(_FAULT)


@dataclass(frozen=True, slots=True)
class LeanRules:
    """The rules of the middleware that a plain request skips.

    Attributes:
        life: says whether Lapse works beside requests already.
        authentication: how callers are known; None: not at all.
        proxies: the proxies whose `X-Forwarded-For` counts.
        served: the apps that are served.
        app_state_by: who sets app state where nobody is authenticated.
        bounds: the bounds of bodies.
    """

    life: Life
    authentication: Authentication | None
    proxies: tuple[Network, ...]
    served: ServedApps
    app_state_by: AppStateBy
    bounds: Bounds


class _Plain(NamedTuple):
    """A request whose head is plain."""

    endpoint: Endpoint
    path: str
    named: Mapping[str, str]
    forwarded: list[str]
    length: int


class LeanSessions:
    """Calls ADK's endpoints for plain requests, and passes all other requests on.

    It stands before the middleware that it knows. It passes every request on if other middleware
    comes after it, or if the two ways were not compared for this version of ADK. It passes on the
    requests of a route if somebody else's route stands before it.

    Args:
        app: the next middleware.
        application: the application whose endpoints it calls.
        rules: the rules of the middleware that it skips.
    """

    def __init__(self, app: ASGIApp, *, application: FastAPI, rules: LeanRules) -> None:
        self._app = app
        self._application = application
        self._rules = rules
        self._is_on = is_compared() and _are_known(application)
        self._is_refused_host = host_check(application)
        self._is_refused_origin = origin_check(application)
        self._around = _around(application)
        self._endpoints: Mapping[tuple[str, bool], Endpoint] = {}
        self._routes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        plain = self._plain(scope) if self._is_on and scope["type"] == "http" else None
        if plain is None:
            await self._app(scope, receive, send)
            return
        received = _Received(receive)
        answer = await self._answer(plain, scope, received)
        if answer is None:
            await self._app(scope, received.again, send)
        else:
            scope[_ANSWER] = answer
            await self._around(scope, receive, send)

    def _plain(self, scope: Scope) -> _Plain | None:
        """Return a request if its head is plain; else None."""
        path = route_path(scope)
        match = _PATH.fullmatch(path)
        if (
            match is None
            or scope["query_string"]
            or scope.get("raw_path") != scope["path"].encode()
            or is_telemetry_read(scope)
            or not self._rules.life.is_on
        ):
            return None
        app_name, user_id, session_id = match.groups()
        endpoint = self._endpoint(scope["method"], session_id is not None)
        headers = scope["headers"]
        forwarded: list[str] = []
        hosts: list[bytes] = []
        has_origin = False
        kind = _JSON
        for name, value in headers:
            if name in _UNUSUAL:
                return None
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                has_origin = True
            elif name == b"x-forwarded-for":
                forwarded.append(value.decode("latin-1"))
            elif name == b"content-type":
                kind = value
        if (
            endpoint is None
            or fault_of_head(scope["raw_path"], b"", headers) is not None
            or (length := length_of(headers)) is None
            or (length and (endpoint.validate is None or kind != _JSON))
            or length > min(SMALL_BODY, self._rules.bounds.largest(scope["method"], path).size)
            or (forwarded and not self._rules.proxies)
            or len(hosts) != 1
            or self._is_refused_host(hosts[0])
            or (has_origin and self._is_refused_origin(scope))
        ):
            return None
        named = {"app_name": app_name, "user_id": user_id}
        if session_id is not None:
            named["session_id"] = session_id
        return _Plain(endpoint, path, named, forwarded, length)

    def _endpoint(self, method: str, names_session: bool) -> Endpoint | None:  # noqa: FBT001
        """Return ADK's endpoint; None if another route may stand before it."""
        routes = self._application.router.routes
        if len(routes) != self._routes:  # an application may get more of them at any time
            self._endpoints, self._routes = endpoints_of(routes), len(routes)
        return self._endpoints.get((method, names_session))

    async def _answer(self, plain: _Plain, scope: Scope, received: _Received) -> Response | None:
        """Return the answer to a plain request; None if it is to be passed on, or has failed."""
        peer = scope.get("client")
        address = client_address(peer[0] if peer else None, plain.forwarded, self._rules.proxies)
        with coming_from(address):
            principal = current_principal()
            if self._rules.authentication is not None:
                principal = await _principal(self._rules.authentication, plain, scope)
                if principal is None:
                    return None
            if not await self._rules.served.has(plain.named["app_name"]):
                return None
            session_id = plain.named.get("session_id")
            with (
                acting(principal),
                nullcontext() if session_id is None else shortening(session_id),
                nullcontext() if current_deputy() is None else one_request(),
            ):
                return await self._called(plain, scope, received)

    async def _called(self, plain: _Plain, scope: Scope, received: _Received) -> Response | None:
        arguments = dict[str, Any](plain.named)
        if plain.length:
            body = await self._body(plain, received)
            if body is None:
                return None
            arguments["req"] = body.made
        call = plain.endpoint.route.dependant.call
        assert call is not None, "a route has an endpoint"
        try:
            answer = await call(**arguments)
        except Exception as error:  # noqa: BLE001 - the route raises it, and it is answered
            scope[_FAULT] = error
            return None
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    async def _body(self, plain: _Plain, received: _Received) -> _Made | None:
        """Return what the endpoint takes for the body; None if the body is not plain."""
        raw = await received.whole()
        body = None if raw is None else read_document(raw)
        if (
            not isinstance(body, Body)
            or body.error is not None
            or body.repeated
            or is_large(body)
            or fault_of_document(plain.path, body, self._rules.bounds) is not None
        ):
            return None
        if body.document is None:
            return _Made(None)
        if not isinstance(body.document, dict) or not is_plain_creation(body.fields):
            return None
        assert plain.endpoint.validate is not None, "the endpoint takes a body"
        try:
            if not may_set_app_state(self._rules.app_state_by):
                refuse_app_state(body.fields)
            return _Made(plain.endpoint.validate(body.document))
        except (InvalidValueError, ValidationError):
            return None


class _Made(NamedTuple):
    """What an endpoint takes for a body; None for JSON's null."""

    made: Any


class _Received:
    """Reads a body, and gives back what it has read if the request is passed on."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def whole(self) -> bytes | None:
        """Return the body; None if it does not come soon, or comes in pieces."""
        try:
            async with asyncio.timeout(_SOON.total_seconds()):
                message = await self._receive()
        except TimeoutError:
            return None
        self._messages.append(message)
        is_whole = message["type"] == "http.request" and not message.get("more_body", False)
        return message.get("body", b"") if is_whole else None

    async def again(self) -> Message:
        """Receive what was read, and then what else comes."""
        return self._messages.pop() if self._messages else await self._receive()


async def _principal(
    authentication: Authentication, plain: _Plain, scope: Scope
) -> Principal | None:
    """Return who asks, if they ask for what is theirs; None if `CallerMiddleware` has to refuse.

    It notes what it finds out, so that the caller is authenticated once.
    """
    access = access_to(
        plain.path,
        open_paths=authentication.open_paths,
        shared_paths=authentication.shared_paths,
    )
    if access.reach is not Reach.OWNER:
        return None
    try:
        principal = await authentication.authenticator.authenticate(HTTPConnection(scope))
    except (NotAuthenticatedError, HTTPException) as error:
        scope[AUTHENTICATED] = error
        return None
    scope[AUTHENTICATED] = principal
    tell_known(scope)
    return principal if principal.may_act_for(access.user_id) else None


def _around(application: FastAPI) -> ASGIApp:
    """Return what sends a request's answer, with the headers for pages of other origins."""
    answered: ASGIApp = _send_answer
    for one in application.user_middleware:
        kind, options = cast("tuple[object, Mapping[str, Any]]", (one.cls, one.kwargs))
        if kind is CORSMiddleware:
            answered = CORSMiddleware(answered, **options)
    return ExposedHeaders(answered)


async def _send_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await scope.pop(_ANSWER)(scope, receive, send)


def _are_known(application: FastAPI) -> bool:
    """Return whether all middleware after `LeanSessions` leaves plain requests alone."""
    kinds: list[object] = [one.cls for one in application.user_middleware]
    after = kinds[kinds.index(LeanSessions) + 1 :]
    return all(kind in _PASSED or is_middleware_of_server(kind) for kind in after)
