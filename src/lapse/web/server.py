"""ADK's application on Lapse's session service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI

from lapse.adk.private import app_of_agents, artifact_service
from lapse.adk.service import LapseSessionService
from lapse.artifacts.sweeper import ArtifactSweeper
from lapse.auth.origins import check_origins
from lapse.web.middleware.headers import SafeHeaders

if TYPE_CHECKING:
    from google.adk.artifacts.base_artifact_service import BaseArtifactService


def adk_app(
    service: LapseSessionService,
    agents_dir: Path,
    *,
    web: bool,
    host: str,
    port: int,
    allow_origins: Sequence[str],
    authenticated: bool,
    artifact_uri: str | None,
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
        artifact_uri: where artifacts are kept, as ADK names it; None: in each agent's folder.

    Raises:
        InvalidValueError: callers are authenticated, and `allow_origins` lets every site in.
    """
    if authenticated:
        check_origins(allow_origins)
    sweepers: list[ArtifactSweeper] = []

    def artifacts(folder: Path) -> BaseArtifactService:
        made = artifact_service(folder, artifact_uri)
        # Where each agent's folder holds its own, asking about an app makes its folder.
        local = artifact_uri is None
        sweepers.append(
            ArtifactSweeper(
                service.store, made, serves=lambda app: not local or (folder / app).is_dir()
            )
        )
        return made

    app = app_of_agents(
        agents_dir,
        sessions=service,
        artifacts=artifacts,
        host=host,
        port=port,
        web=web,
        allow_origins=allow_origins,
    )
    return app, sweepers[-1]


def finish_app(app: FastAPI, *, web: bool) -> None:
    """Add safe headers.

    Without `web` FastAPI's pages about the routes go: they run another site's scripts in this one.
    """
    app.add_middleware(SafeHeaders)
    if not web:
        pages = {app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url}
        for route in list(app.router.routes):
            if getattr(route, "path", None) in pages:
                app.router.routes.remove(route)
