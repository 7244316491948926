"""Serving below a path prefix, in another application, as `pytest --prefix /api` asks for it.

Run as a program, this module is `lapse` whose server stands below the prefix that comes first.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import Any

prefix = ""
"""The prefix below which servers of tests serve; empty: at the root."""

MODULES = (
    *("tests/adk/test_adk_answers", "tests/adk/test_adk_artifacts", "tests/adk/test_adk_http"),
    *("tests/artifacts/test_artifacts_http", "tests/audit/test_audit_http"),
    *("tests/auth/test_auth_app_state", "tests/auth/test_auth_bodies"),
    *("tests/auth/test_auth_matrix", "tests/auth/test_auth_mount", "tests/auth/test_auth_server"),
    *("tests/dashboard/test_dashboard_login", "tests/dashboard/test_dashboard_routes"),
    "tests/dashboard/test_dashboard_acts_and_search",
    *("tests/demo/test_demo_page", "tests/notices/test_notices_stream"),
    *("tests/quotas/test_quotas_http", "tests/runs/test_runs_bounds", "tests/runs/test_runs_http"),
    *("tests/runs/test_runs_live", "tests/runs/test_runs_plain", "tests/runs/test_runs_streams"),
    *("tests/system/hostile/test_hostile_apps", "tests/system/hostile/test_hostile_bodies"),
    *("tests/system/hostile/test_hostile_disguised", "tests/telemetry/test_telemetry_log_server"),
    *("tests/telemetry/test_telemetry_prometheus", "tests/ttl/test_ttl_http"),
    *("tests/web/test_web_bad_input", "tests/web/test_web_bodies", "tests/web/test_web_client"),
    *("tests/web/test_web_health", "tests/web/test_web_processes"),
)
"""The tests that ask a server over HTTP: these, and no others, run below a prefix."""


def below(app: Any, path: str) -> Any:
    """Return an application with this one mounted below a path, whose lifespan it passes on."""
    from fastapi import FastAPI

    inner = app
    while not hasattr(inner, "router"):
        inner = inner._app  # middleware around the application

    @asynccontextmanager
    async def lifespan(_outer):
        async with inner.router.lifespan_context(inner):
            yield

    outer = FastAPI(lifespan=lifespan)
    outer.mount(path, app)
    return outer


def run(path: str) -> None:
    """Be `lapse`, whose server stands below a path unless that is empty."""
    if path:
        import uvicorn

        class Config(uvicorn.Config):
            def __init__(self, app: Any, **options: Any) -> None:
                super().__init__(below(app, path), **options)

        uvicorn.Config = Config  # type: ignore[misc]
    from lapse.cli.main import main

    main()


if __name__ == "__main__":
    run(sys.argv.pop(1))
