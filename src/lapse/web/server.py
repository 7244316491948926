"""ADK's application on Lapse's session service."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.private.loaders import artifact_service
from lapse.adk.private.servers import app_of_agents
from lapse.adk.server import (
    adk_arguments,
    check_folder,
    check_plugins,
    plain_errors,
    switch_features,
)
from lapse.adk.server_options import ServerOptions
from lapse.adk.service import LapseSessionService
from lapse.artifacts.sweeper import ArtifactSweeper
from lapse.auth.origins import check_origins
from lapse.core.errors import InvalidValueError
from lapse.web.middleware.headers import SafeHeaders
from lapse.web.middleware.stopped import StoppedMiddleware

if TYPE_CHECKING:
    from google.adk.artifacts.base_artifact_service import BaseArtifactService

_log = logging.getLogger(__name__)


def adk_app(
    service: LapseSessionService,
    agents_dir: Path,
    *,
    web: bool,
    host: str,
    port: int,
    allow_origins: Sequence[str],
    authenticated: bool,
    options: ServerOptions,
    shared: bool,
) -> tuple[FastAPI, ArtifactSweeper]:
    """Return ADK's application for a folder of agents, and what deletes its artifacts.

    Args:
        service: what the agents run on.
        agents_dir: the folder.
        web: whether ADK's developer UI is served, too.
        host: the address that is listened on; ADK checks requests against it.
        port: the port that is listened on.
        allow_origins: origins of pages that may call.
        authenticated: whether callers are authenticated; then every site's pages must not be
            among those that may call.
        options: what else ADK's server is told.
        shared: whether other servers may use the same store; then one line says so if they do not
            share artifacts.

    Raises:
        InvalidValueError: callers are authenticated, and `allow_origins` lets every site in; or
            ADK cannot do what an option says.
    """
    if authenticated:
        check_origins(allow_origins)
    uri = options.artifact_service_uri
    if shared and uri is None:
        _log.warning(
            "only this server finds the artifacts that it keeps; other servers on the same store "
            "share them with --artifact-service-uri (LAPSE_ARTIFACT_SERVICE_URI), such as "
            "gs://BUCKET or file:///SHARED/FOLDER"
        )
    sweepers: list[ArtifactSweeper] = []

    def artifacts(folder: Path) -> BaseArtifactService:
        try:
            made = artifact_service(folder, uri, use_local_storage=options.use_local_storage)
        except ValueError as error:
            raise InvalidValueError("artifact_service_uri", str(error)) from error
        # Where each agent's folder holds its own, asking about an app makes its folder.
        local = uri is None
        sweepers.append(
            ArtifactSweeper(
                service.store, made, serves=lambda app: not local or (folder / app).is_dir()
            )
        )
        return made

    check_folder(agents_dir)
    switch_features(options)
    with plain_errors(options):
        app = app_of_agents(
            agents_dir,
            sessions=service,
            artifacts=artifacts,
            host=host,
            port=port,
            web=web,
            allow_origins=allow_origins,
            options=adk_arguments(options),
        )
        check_plugins(options)
    return app, sweepers[-1]


class BelowPrefix:
    """Tells the layers around an application its prefix, which otherwise only its routes know."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with the prefix unless the server has set one."""
        if scope["type"] != "lifespan" and not scope.get("root_path"):
            scope = {**scope, "root_path": self._prefix}
        await self._app(scope, receive, send)


def finish_app(app: FastAPI, *, web: bool) -> None:
    """Add safe headers, and an answer to what the server breaks off.

    Without `web` FastAPI's pages about the routes go: they run another site's scripts in this one.
    """
    app.add_middleware(StoppedMiddleware)
    app.add_middleware(SafeHeaders)
    if not web:
        pages = {app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url}
        for route in list(app.router.routes):
            if getattr(route, "path", None) in pages:
                app.router.routes.remove(route)
