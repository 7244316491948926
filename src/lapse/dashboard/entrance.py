"""The entrance of the operators' pages: a route that loads them at their first request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.core.request import route_path

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

    from lapse.adk.service import LapseSessionService
    from lapse.dashboard.options import OperatorOptions
    from lapse.sweep.rules import BrakeOptions

_BELOW = "/lapse/"


def add_operators(
    app: FastAPI,
    service: LapseSessionService,
    options: OperatorOptions,
    *,
    sweeps: bool,
    brakes: BrakeOptions,
) -> None:
    """Add the operators' pages and their API to an application; `options` say who may use them.

    Their modules, templates and routes are loaded at the first request to a path below `/lapse/`
    that no route before has answered, or when the application's OpenAPI document is made.
    """

    def load() -> APIRouter:
        from lapse.dashboard.routes import operators_routes

        return operators_routes(app, service, options, sweeps=sweeps, brakes=brakes)

    entrance = Entrance(app, load)
    app.router.routes.append(entrance)
    document = app.openapi

    def openapi() -> dict[str, Any]:
        entrance.open()
        return document()

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to change it


class Entrance(BaseRoute):
    """A route that puts other routes into its place, once, and then has the request routed again.

    So a request that comes before they are loaded gets the answer of one that comes after.

    Args:
        app: the application, of whose routes this is one.
        load: makes the routes; it takes a tenth of a second, so a request loads in a thread.
    """

    def __init__(self, app: FastAPI, load: Callable[[], APIRouter]) -> None:
        self._app = app
        self._load = load
        self._loading = threading.Lock()
        self._loaded: APIRouter | None = None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every HTTP request to a path below `/lapse/`."""
        if scope["type"] == "http" and route_path(scope).startswith(_BELOW):
            return Match.FULL, {}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Load the routes, if no other request has, and route the request again."""
        await asyncio.to_thread(self._router)
        self.open()
        await self._app.router(scope, receive, send)

    def open(self) -> None:
        """Put the routes into this one's place; a second call does nothing."""
        routes = self._app.router.routes
        if self not in routes:
            return
        router, before = self._router(), len(routes)
        self._app.include_router(router)
        included = routes[before:]
        del routes[before:]
        place = routes.index(self)
        routes[place : place + 1] = included

    def _router(self) -> APIRouter:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded


class OperatorsPortMiddleware:
    """Middleware that serves only the operators' pages and API on the port `port`."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404 (a WebSocket: close it)."""
        on_this_port = (scope.get("server") or ("", None))[1] == self._port
        if not on_this_port or scope["type"] == "lifespan" or route_path(scope).startswith(_BELOW):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await Response('{"detail":"Not Found"}', 404, media_type="application/json")(
                scope, receive, send
            )
        else:
            await send({"type": "websocket.close", "code": 1000})
