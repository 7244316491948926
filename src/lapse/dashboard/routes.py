"""The routes of the operators' pages at `/lapse/` and of their API at `/lapse/api/`."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from starlette.responses import Response

from lapse.adk.service import LapseSessionService
from lapse.dashboard.actions import Actions
from lapse.dashboard.api import api_routes
from lapse.dashboard.exports import export_routes
from lapse.dashboard.forms import change_routes
from lapse.dashboard.login import Login
from lapse.dashboard.options import OperatorOptions
from lapse.dashboard.pages import page_routes, unknown_pages
from lapse.dashboard.reader import Reader
from lapse.dashboard.rendering import MEDIA_TYPES, Pages
from lapse.dashboard.retention import Retention
from lapse.dashboard.retention_api import retention_routes
from lapse.dashboard.retention_pages import retention_pages
from lapse.sweep.rules import BrakeOptions


def operators_routes(
    app: FastAPI,
    service: LapseSessionService,
    options: OperatorOptions,
    *,
    sweeps: bool,
    brakes: BrakeOptions,
) -> APIRouter:
    """Return a router of the pages, of their static files and of the API.

    The routes find the templates in the state of `app`.
    """
    login, router = Login(options), APIRouter()
    pages = Pages(login.signatures, options.store)
    actions = Actions(service, brakes)
    reader = Reader(
        service,
        sweeps=sweeps,
        has_webhook=options.has_webhook,
        retention_file=options.retention_file,
    )
    retention = Retention(service, options.retention_file)
    app.state.lapse_operators_pages = pages

    async def static(request: Request, name: str) -> Response:
        if name not in pages.files:
            raise HTTPException(404)
        kind = MEDIA_TYPES[name[name.rindex(".") :]]
        # The address contains a digest of the files, so they can be cached for ever.
        headers = {"Cache-Control": "max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            # Only these are compressed: a page has a form's token beside what was asked for.
            headers["Content-Encoding"] = "gzip"
            return Response(pages.compressed[name], media_type=kind, headers=headers)
        return Response(pages.files[name], media_type=kind, headers=headers)

    router.add_api_route(
        "/lapse/static/{release}/{name}",
        static,
        include_in_schema=False,
        dependencies=[Depends(login.check_reachable)],
    )
    router.include_router(page_routes(service, login, pages, reader, retention))
    router.include_router(change_routes(service, login, pages, actions))
    router.include_router(retention_pages(service.store, login, pages, reader, retention))
    router.include_router(api_routes(service, login, reader, actions, retention))
    router.include_router(retention_routes(login, retention))
    router.include_router(export_routes(service, login))
    router.include_router(unknown_pages(login))  # the last: it takes every other path
    return router
