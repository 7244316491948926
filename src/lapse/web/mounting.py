"""Lapse's routes and its sweeper in a FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from lapse.logs import log_change, log_sweep
from lapse.metrics import Metrics
from lapse.sessions import LapseSessionService
from lapse.sweeper import Sweeper, SweepReport
from lapse.web.faults import install_faults
from lapse.web.front import SessionInFront
from lapse.web.health import health_routes
from lapse.web.lifecycle import lifecycle_routes
from lapse.web.page import add_client


def mount(
    app: FastAPI,
    service: LapseSessionService,
    *,
    sweep: bool = True,
    default_app: str | None = None,
) -> None:
    """Add Lapse to an application that has not started yet.

    It gains the lifecycle routes, `/lapse/client.js`, `/livez`, `/readyz` and `/metrics`,
    answers for Lapse's errors, and runs of ADK's (`/run`, `/run_sse`, `/run_live`) that
    resurrect their session.
    For the application's lifetime the store is open and, unless `sweep` is False, swept;
    at its end the service is closed.

    Args:
        app: the application.
        service: the service that its agents run on.
        sweep: False where another process sweeps the store.
        default_app: the app of runs that name none (ADK's ADK_DEFAULT_APP_NAME).
    """
    metrics = Metrics(service.store)
    service.feed.subscribe(metrics.count_change)
    service.feed.subscribe(log_change)

    def report(swept: SweepReport) -> None:
        metrics.count_sweep(swept)
        log_sweep(swept)

    sweeper = Sweeper(service.store, service.feed, on_report=report, on_fault=metrics.count_fault)
    app.include_router(lifecycle_routes(service))
    app.include_router(
        health_routes(service.store, metrics, sweeper_is_well=lambda: not sweep or sweeper.is_alive)
    )
    add_client(app)
    install_faults(app)
    app.add_middleware(SessionInFront, default_app=default_app)
    app.router.lifespan_context = _within(
        service, sweeper if sweep else None, app.router.lifespan_context
    )


def _within(service: LapseSessionService, sweeper: Sweeper | None, inner: Any) -> Any:
    """Return a lifespan that has the store open, and swept, around the application's own."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with service:
            if sweeper is not None:
                await sweeper.start()
            try:
                async with inner(app) as state:
                    yield state
            finally:
                if sweeper is not None:
                    await sweeper.stop()

    return lifespan
