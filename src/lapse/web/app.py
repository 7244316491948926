"""The server: ADK's application on Lapse's session service, with Lapse's routes beside it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from lapse.agents import default_app
from lapse.sessions import LapseSessionService
from lapse.watching import WatchOptions
from lapse.web.mounting import mount
from lapse.web.page import add_chat_page


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
    watch: WatchOptions = field(default_factory=WatchOptions)


def build_app(service: LapseSessionService, options: ServerOptions, *, sweep: bool) -> FastAPI:
    """Return ADK's FastAPI application for a folder of agents, on this service."""
    from google.adk.cli.fast_api import get_fast_api_app
    from google.adk.cli.service_registry import get_service_registry

    def ready(uri: str, **_options: Any) -> LapseSessionService:  # noqa: ARG001 - ADK's signature
        return service

    # ADK takes its session service by URI only; a factory may return a ready one.
    scheme = f"lapse-{uuid.uuid4().hex}"
    get_service_registry().register_session_service(scheme, ready)
    app = get_fast_api_app(
        agents_dir=str(options.agents_dir),
        session_service_uri=f"{scheme}://",
        artifact_service_uri=options.artifact_service_uri,
        allow_origins=list(options.allow_origins) or None,
        web=options.web,
        bind_host=options.host,
        host=options.host,
        port=options.port,
    )
    mount(
        app,
        service,
        sweep=sweep,
        default_app=default_app(options.agents_dir),
        watch=options.watch,
    )
    if options.chat_app is not None:
        add_chat_page(app, options.chat_app)
    return app
