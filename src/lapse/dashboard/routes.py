"""The operators' pages at `/lapse/` and their API at `/lapse/api/`."""

from __future__ import annotations

from fastapi import Depends, FastAPI, HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.service import LapseSessionService
from lapse.dashboard.actions import Doing
from lapse.dashboard.api import api_routes
from lapse.dashboard.forms import change_routes
from lapse.dashboard.login import Admission
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
    """Add the pages and the API to an application; both are closed as the options say."""
    admission, pages = Admission(options), Pages()
    reader, doing = Reader(service, sweeps=sweeps), Doing(service, brakes)
    app.state.lapse_operators_pages = pages

    async def static(name: str) -> Response:
        if name not in pages.files:
            raise HTTPException(404)
        kind = MEDIA_TYPES[name[name.rindex(".") :]]
        # Their address changes with every release.
        headers = {"Cache-Control": "max-age=31536000, immutable"}
        return Response(pages.files[name], media_type=kind, headers=headers)

    app.add_api_route(
        "/lapse/static/{release}/{name}",
        static,
        include_in_schema=False,
        dependencies=[Depends(admission.reachable)],
    )
    app.include_router(page_routes(service, options, admission, pages, reader))
    app.include_router(change_routes(service, options, admission, pages, doing))
    app.include_router(api_routes(service, admission, reader, doing))


class OperatorsDoor:
    """Lets nothing but the operators' pages and API through on the port that is theirs."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer that there is nothing."""
        by_this_door = (scope.get("server") or ("", None))[1] == self._port
        if not by_this_door or scope["type"] == "lifespan" or scope["path"].startswith("/lapse/"):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await Response('{"detail":"Not Found"}', 404, media_type="application/json")(
                scope, receive, send
            )
        else:
            await send({"type": "websocket.close", "code": 1000})
