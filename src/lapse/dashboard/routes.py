"""The operators' pages at `/lapse/` and their API at `/lapse/api/`."""

from __future__ import annotations

from fastapi import Depends, FastAPI, HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.service import LapseSessionService
from lapse.core.request import route_path
from lapse.dashboard.actions import Actions
from lapse.dashboard.api import api_routes
from lapse.dashboard.forms import change_routes
from lapse.dashboard.login import Login
from lapse.dashboard.options import OperatorOptions
from lapse.dashboard.pages import page_routes
from lapse.dashboard.reader import Reader
from lapse.dashboard.rendering import MEDIA_TYPES, Pages
from lapse.sweep.rules import BrakeOptions


def add_operators(
    app: FastAPI,
    service: LapseSessionService,
    options: OperatorOptions,
    *,
    sweeps: bool,
    brakes: BrakeOptions,
) -> None:
    """Add the operators' pages and their API to an application; `options` say who may use them."""
    login, pages = Login(options), Pages()
    reader, actions = Reader(service, sweeps=sweeps), Actions(service, brakes)
    app.state.lapse_operators_pages = pages

    async def static(name: str) -> Response:
        if name not in pages.files:
            raise HTTPException(404)
        kind = MEDIA_TYPES[name[name.rindex(".") :]]
        # The address contains a digest of the files, so they can be cached for ever.
        headers = {"Cache-Control": "max-age=31536000, immutable"}
        return Response(pages.files[name], media_type=kind, headers=headers)

    app.add_api_route(
        "/lapse/static/{release}/{name}",
        static,
        include_in_schema=False,
        dependencies=[Depends(login.check_reachable)],
    )
    app.include_router(page_routes(service, options, login, pages, reader))
    app.include_router(change_routes(service, options, login, pages, actions))
    app.include_router(api_routes(service, login, reader, actions))


class OperatorsPortMiddleware:
    """Middleware that serves only the operators' pages and API on the port `port`."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404 (a WebSocket: close it)."""
        on_this_port = (scope.get("server") or ("", None))[1] == self._port
        if (
            not on_this_port
            or scope["type"] == "lifespan"
            or route_path(scope).startswith("/lapse/")
        ):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await Response('{"detail":"Not Found"}', 404, media_type="application/json")(
                scope, receive, send
            )
        else:
            await send({"type": "websocket.close", "code": 1000})
