"""Lapse's routes and its sweeper in a FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from lapse.logs import log_change, log_sweep
from lapse.metrics import Metrics
from lapse.run_metrics import RunMetrics
from lapse.run_store import RunLimits
from lapse.runs import Runs
from lapse.sessions import LapseSessionService
from lapse.sweeper import Sweeper, SweepReport
from lapse.web.adk import opener_for, opener_of
from lapse.web.detached import DetachedRoute
from lapse.web.faults import install_faults
from lapse.web.front import SessionInFront
from lapse.web.health import health_routes
from lapse.web.lifecycle import lifecycle_routes
from lapse.web.runs import run_routes

if TYPE_CHECKING:
    from google.adk.runners import Runner


def mount(
    app: FastAPI,
    service: LapseSessionService,
    *,
    sweep: bool = True,
    default_app: str | None = None,
    runners: Iterable[Runner] = (),
    run_limits: RunLimits = RunLimits(),
) -> Runs:
    """Add Lapse to an application that has not started yet.

    It gains the lifecycle routes, `/livez`, `/readyz` and `/metrics`, answers for Lapse's
    errors, and runs of ADK's (`/run`, `/run_sse`, `/run_live`) that resurrect their session.
    Where there are agents to run, by ADK's `/run_sse` in the application or by `runners`, it also
    gains `…/run`, runs that outlive their connection, and `/run_sse` can be detached.
    For the application's lifetime the store is open and, unless `sweep` is False, swept;
    at its end the service is closed.

    Args:
        app: the application.
        service: the service that its agents run on.
        sweep: False where another process sweeps the store.
        default_app: the app of runs that name none (ADK's ADK_DEFAULT_APP_NAME).
        runners: runners for an application without ADK's own routes, one for each app.
        run_limits: how much of running this process does.

    Returns:
        The runs, for whoever wants to `drain` them before the application ends.
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
    runs = Runs(service, run_limits, RunMetrics(metrics.registry))
    opener = opener_for(runners, service) if runners else opener_of(app)
    if opener is not None:
        app.include_router(run_routes(service, runs, opener))
        app.router.routes.insert(0, DetachedRoute(runs, opener, default_app=default_app))
    install_faults(app)
    app.add_middleware(SessionInFront, default_app=default_app)
    app.router.lifespan_context = _within(
        service, runs, sweeper if sweep else None, app.router.lifespan_context
    )
    return runs


def _within(service: LapseSessionService, runs: Runs, sweeper: Sweeper | None, inner: Any) -> Any:
    """Return a lifespan that has the store open, and swept, around the application's own."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with service:
            if sweeper is not None:
                await sweeper.start()
            await runs.start()
            try:
                async with inner(app) as state:
                    try:
                        yield state
                    finally:
                        # Before ADK closes the runners.
                        await runs.drain()
            finally:
                if sweeper is not None:
                    await sweeper.stop()

    return lifespan
