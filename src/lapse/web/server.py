"""The server: ADK's application on Lapse's session service, with Lapse's routes beside it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from lapse.adk.agents import default_app
from lapse.adk.service import LapseSessionService
from lapse.artifacts.sweeper import ArtifactSweeper
from lapse.demo.page import add_chat_page
from lapse.runs.runs import Runs
from lapse.web.application import MountOptions, mount
from lapse.web.middleware.headers import SafeHeaders


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What `lapse serve` passes on to ADK."""

    agents_dir: Path
    host: str
    port: int
    web: bool = False
    allow_origins: tuple[str, ...] = ()
    artifact_service_uri: str | None = None
    chat_app: str | None = None
    """The agent that a chat page at `/` talks to; none: no such page."""


def build_app(
    service: LapseSessionService,
    options: ServerOptions,
    mounted: MountOptions,
) -> tuple[FastAPI, Runs]:
    """Return ADK's FastAPI application for a folder of agents, on this service, and its runs.

    The folder says which app is the default, whatever `mounted` says of it.
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
            base_dir=folder, artifact_service_uri=options.artifact_service_uri, strict_uri=True
        )
        # Where each agent's folder holds its own, asking about an app makes its folder.
        local = options.artifact_service_uri is None
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
        agents_dir=str(options.agents_dir),
        session_service_uri=f"{scheme}://",
        artifact_service_uri=f"{scheme}://",
        allow_origins=list(options.allow_origins) or None,
        web=options.web,
        bind_host=options.host,
        host=options.host,
        port=options.port,
    )
    runs = mount(
        app,
        service,
        replace(mounted, default_app=default_app(options.agents_dir)),
        artifacts=sweepers[-1],
    )
    app.add_middleware(SafeHeaders)
    if not options.web:
        _without_docs(app)
    if options.chat_app is not None:
        add_chat_page(app, options.chat_app)
    return app, runs


def _without_docs(app: FastAPI) -> None:
    """Take FastAPI's pages about the routes away: they run another site's scripts in this one."""
    pages = {app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url}
    for route in list(app.router.routes):
        if getattr(route, "path", None) in pages:
            app.router.routes.remove(route)
