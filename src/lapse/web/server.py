"""ADK's application on Lapse's session service."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from lapse.adk.service import LapseSessionService
from lapse.artifacts.sweeper import ArtifactSweeper
from lapse.web.middleware.headers import SafeHeaders


def adk_app(
    service: LapseSessionService,
    agents_dir: Path,
    *,
    web: bool,
    host: str,
    port: int,
    allow_origins: Sequence[str],
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
        artifact_uri: where artifacts are kept, as ADK names it; None: in each agent's folder.
    """
    from google.adk.artifacts.base_artifact_service import BaseArtifactService
    from google.adk.cli.fast_api import get_fast_api_app
    from google.adk.cli.service_registry import get_service_registry
    from google.adk.cli.utils.service_factory import create_artifact_service_from_options

    sweepers: list[ArtifactSweeper] = []

    def ready(uri: str, **_options: Any) -> LapseSessionService:  # noqa: ARG001 - ADK's signature
        return service

    def noted(uri: str, **given: Any) -> BaseArtifactService:  # noqa: ARG001 - ADK's signature
        folder = Path(given["agents_dir"])
        made = create_artifact_service_from_options(
            base_dir=folder, artifact_service_uri=artifact_uri, strict_uri=True
        )
        # Where each agent's folder holds its own, asking about an app makes its folder.
        local = artifact_uri is None
        sweepers.append(
            ArtifactSweeper(
                service.store, made, serves=lambda app: not local or (folder / app).is_dir()
            )
        )
        return made

    # ADK takes its services by URI only; a factory may return a ready one, and sees what is made.
    scheme = f"lapse-{uuid.uuid4().hex}"
    get_service_registry().register_session_service(scheme, ready)
    get_service_registry().register_artifact_service(scheme, noted)
    app = get_fast_api_app(
        agents_dir=str(agents_dir),
        session_service_uri=f"{scheme}://",
        artifact_service_uri=f"{scheme}://",
        allow_origins=list(allow_origins) or None,
        web=web,
        bind_host=host,
        host=host,
        port=port,
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
