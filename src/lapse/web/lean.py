"""Answers plain requests to ADK's session routes without the layers that would only pass them on.

A page creates a session when it opens, and reads and lists sessions all the time. FastAPI and some
fifteen layers take three quarters of the time of such a request, and most have nothing to do for
it. The middleware here calls ADK's own endpoints for requests that no layer would change or
refuse, and passes all others on, so that there is one place for each rule.

`tests/web/test_web_lean.py` sends the same requests both ways and compares the answers byte for
byte.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.adk.agents import ServedApps
from lapse.adk.creation import is_plain_creation
from lapse.adk.endpoints import validator_of
from lapse.adk.private import API_SERVER, host_check, is_compared, is_layer_of_server
from lapse.audit.request import one_request
from lapse.auth import Authentication
from lapse.auth.access import Reach, access_to
from lapse.auth.addresses import Network, client_address, coming_from
from lapse.auth.app_state import AppStateBy, may_set_app_state, refuse_app_state
from lapse.auth.options import NotAuthenticatedError
from lapse.auth.principals import Principal, acting, current_deputy, current_principal
from lapse.core.errors import InvalidValueError
from lapse.core.request import Body, route_path
from lapse.idempotency.request import NAME as IDEMPOTENCY_KEY
from lapse.limits.documents import read_document
from lapse.limits.routes import is_large
from lapse.limits.rules import SMALL_BODY, Bounds, fault_of_document, fault_of_head
from lapse.telemetry.logs import shortening
from lapse.telemetry.provider import is_read
from lapse.web.life import Life

_FAULT: Final = "lapse.fault"
"""Where a request's scope has the error that its route raises."""

_ID: Final = "([A-Za-z0-9][A-Za-z0-9_.~-]{0,127})"
_PATH: Final = re.compile(f"/apps/{_ID}/users/{_ID}/sessions(?:/{_ID})?")

_UNUSUAL: Final = frozenset(
    {
        *(b"origin", b"cookie", b"expect", b"transfer-encoding", b"upgrade"),
        *(b"traceparent", b"tracestate", b"baggage", IDEMPOTENCY_KEY),
    }
)
"""Headers by which some layer does more than pass the request on."""

_READ: Final = ("GET", True)
_ENDPOINTS: Final = {
    ("POST", False): "create_session",
    ("GET", False): "list_sessions",
    _READ: "get_session",
    ("DELETE", True): "delete_session",
}
"""ADK's endpoints, by the method and by whether the path names a session."""

_JSON: Final = b"application/json"
_SOON: Final = timedelta(seconds=1)

Endpoint = Callable[..., Awaitable[Any]]


class FaultRoute(BaseRoute):
    """Raises the error of an endpoint that was called in front, as its route would have done."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only a request that has such an error."""
        if _FAULT not in scope:
            return Match.NONE, {}
        return Match.FULL, {}

    async def handle(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Raise it."""
        raise scope.pop(_FAULT)


@dataclass(frozen=True, slots=True)
class Layers:
    """What the layers know that a request to be answered in front does not pass.

    Attributes:
        life: says whether Lapse works beside requests already.
        authentication: how callers are known; None: not at all.
        proxies: whose word about the client's address is taken.
        served: the apps that are served.
        app_state_by: who sets app state where nobody is authenticated.
        passed: the kinds of Lapse's own layers.
    """

    life: Life
    authentication: Authentication | None
    proxies: tuple[Network, ...]
    served: ServedApps
    app_state_by: AppStateBy
    passed: frozenset[object]


class _Plain(NamedTuple):
    """A request whose head is plain."""

    route: _EndpointOf
    path: str
    named: Mapping[str, str]
    forwarded: list[str]
    length: int


class _EndpointOf(NamedTuple):
    """An endpoint of ADK's, and what makes the object that it takes for a body, if it takes one."""

    call: Endpoint
    validate: Callable[[Any], Any] | None


class LeanSessions:
    """Calls ADK's endpoints for plain requests, and passes all other requests on.

    It stands in front of the layers that it knows. It passes everything on if the application has
    another layer behind it, if a route is not ADK's own, or if the version of ADK is none for which
    the two ways were compared.

    Args:
        app: the next layer.
        application: the application whose endpoints it calls.
        layers: what the layers know that it leaves out.
        bounds: the bounds of documents.
        get_session: what takes the place of ADK's endpoint that answers with a session, and
            answers alike; None: nothing does.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        application: FastAPI,
        layers: Layers,
        bounds: Bounds,
        get_session: Endpoint | None = None,
    ) -> None:
        self._app = app
        self._application = application
        self._layers = layers
        self._bounds = bounds
        self._get_session = get_session
        self._is_refused_host = host_check(application)
        self._is_on = is_compared() and _are_known(application, layers.passed)
        self._endpoints: dict[tuple[str, bool], _EndpointOf] = {}
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
            await answer(scope, receive, send)

    def _plain(self, scope: Scope) -> _Plain | None:
        """Return a request if its head is plain; else None."""
        path = route_path(scope)
        match = _PATH.fullmatch(path)
        if (
            match is None
            or scope["query_string"]
            or scope.get("raw_path") != scope["path"].encode()
            or is_read()
            or not self._layers.life.is_on
        ):
            return None
        app_name, user_id, session_id = match.groups()
        route = self._route(scope["method"], session_id is not None)
        forwarded: list[str] = []
        hosts: list[bytes] = []
        kind, length = _JSON, 0
        for name, value in scope["headers"]:
            if name in _UNUSUAL:
                return None
            if name == b"host":
                hosts.append(value)
            elif name == b"x-forwarded-for":
                forwarded.append(value.decode("latin-1"))
            elif name == b"content-type":
                kind = value
            elif name == b"content-length":
                length = int(value) if value.isdigit() else SMALL_BODY + 1
        if (
            route is None
            or (length and (route.validate is None or kind != _JSON or length > SMALL_BODY))
            or (forwarded and not self._layers.proxies)
            or len(hosts) != 1
            or self._is_refused_host(hosts[0])
            or fault_of_head(scope["raw_path"], b"", scope["headers"]) is not None
        ):
            return None
        named = {"app_name": app_name, "user_id": user_id}
        if session_id is not None:
            named["session_id"] = session_id
        return _Plain(route, path, named, forwarded, length)

    def _route(self, method: str, names_session: bool) -> _EndpointOf | None:  # noqa: FBT001
        """Return ADK's endpoint; None if another route than ADK's would answer."""
        routes = self._application.router.routes
        if len(routes) != self._routes:  # an application may get more of them at any time
            self._endpoints, self._routes = _endpoints_of(routes), len(routes)
            if self._get_session is not None and _READ in self._endpoints:
                self._endpoints[_READ] = _EndpointOf(self._get_session, None)
        return self._endpoints.get((method, names_session))

    async def _answer(self, plain: _Plain, scope: Scope, received: _Received) -> Response | None:
        """Return the answer to a plain request; None if it turns out to be none, or fails."""
        layers, peer = self._layers, scope.get("client")
        address = client_address(peer[0] if peer else None, plain.forwarded, layers.proxies)
        principal = current_principal()
        if layers.authentication is not None:
            principal = await _principal(layers.authentication, plain, scope)
            if principal is None:
                return None
        if not await layers.served.has(plain.named["app_name"]):
            return None
        session_id = plain.named.get("session_id")
        with (
            coming_from(address),
            acting(principal),
            nullcontext() if session_id is None else shortening(session_id),
            nullcontext() if current_deputy() is None else one_request(),
        ):
            arguments = dict[str, Any](plain.named)
            if plain.length:
                body = await self._body(plain, received)
                if body is None:
                    return None
                arguments["req"] = body.made
            try:
                answer = await plain.route.call(**arguments)
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
            or fault_of_document(plain.path, body, self._bounds) is not None
        ):
            return None
        if body.document is None:
            return _Made(None)
        if not isinstance(body.document, dict) or not is_plain_creation(body.fields):
            return None
        assert plain.route.validate is not None, "the endpoint takes a body"
        try:
            if not may_set_app_state(self._layers.app_state_by):
                refuse_app_state(body.fields)
            return _Made(plain.route.validate(body.document))
        except (InvalidValueError, ValidationError):
            return None


class _Made(NamedTuple):
    """What an endpoint takes for a body; None for JSON's null."""

    made: Any


class _Received:
    """What a request brings: as often as it is asked for, if it came at once."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def whole(self) -> bytes | None:
        """Return the body; None if it is not whole soon: slow bodies are for other layers."""
        try:
            async with asyncio.timeout(_SOON.total_seconds()):
                message = await self._receive()
        except TimeoutError:
            return None
        self._messages.append(message)
        is_whole = message["type"] == "http.request" and not message.get("more_body", False)
        return message.get("body", b"") if is_whole else None

    async def again(self) -> Message:
        """Receive what came, and then what else comes."""
        return self._messages.pop() if self._messages else await self._receive()


async def _principal(
    authentication: Authentication, plain: _Plain, scope: Scope
) -> Principal | None:
    """Return who asks, if they ask for what is theirs; None if another layer has to say no."""
    access = access_to(
        plain.path,
        open_paths=authentication.open_paths,
        shared_paths=authentication.shared_paths,
    )
    if access.reach is not Reach.OWNER:
        return None
    try:
        principal = await authentication.authenticator.authenticate(HTTPConnection(scope))
    except (NotAuthenticatedError, HTTPException):
        return None
    return principal if principal.may_act_for(access.user_id) else None


def _are_known(application: FastAPI, passed: Collection[object]) -> bool:
    """Return whether each layer behind this one is known to leave plain requests alone."""
    layers: list[object] = [layer.cls for layer in application.user_middleware]
    behind = layers[layers.index(LeanSessions) + 1 :]
    return all(cls in passed or cls is CORSMiddleware or is_layer_of_server(cls) for cls in behind)


def _endpoints_of(routes: Iterable[BaseRoute]) -> dict[tuple[str, bool], _EndpointOf]:
    """Return ADK's endpoints by method and by whether the path names a session.

    Left out are those before which another route would answer.
    """
    found: dict[tuple[str, bool], _EndpointOf] = {}
    for (method, names_session), name in _ENDPOINTS.items():
        path = "/apps/a/users/u/sessions" + ("/s" if names_session else "")
        scope = {"type": "http", "method": method, "path": path, "query_string": b""}
        route = next((one for one in routes if one.matches(scope)[0] is Match.FULL), None)
        if (
            isinstance(route, APIRoute)
            and route.endpoint.__module__ == API_SERVER
            and route.endpoint.__name__ == name
            and route.dependant.call is not None
        ):
            found[method, names_session] = _EndpointOf(route.dependant.call, validator_of(route))
    return found
