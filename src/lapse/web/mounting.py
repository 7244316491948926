"""Lapse's routes and its sweeper in a FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from lapse.logs import log_change, log_sweep
from lapse.metrics import Metrics
from lapse.sessions import LapseSessionService
from lapse.sweeper import Sweeper, SweepReport
from lapse.watcher import Watcher
from lapse.watching import WatchOptions
from lapse.web.faults import install_faults
from lapse.web.front import SessionInFront
from lapse.web.health import health_routes
from lapse.web.lifecycle import lifecycle_routes
from lapse.web.notices import StreamsInFront, notice_routes
from lapse.web.page import add_client


def mount(
    app: FastAPI,
    service: LapseSessionService,
    *,
    sweep: bool = True,
    default_app: str | None = None,
    watch: WatchOptions = WatchOptions(),
) -> None:
    """Add Lapse to an application that has not started yet.

    It gains the lifecycle routes, `/lapse/client.js`, `/livez`, `/readyz` and `/metrics`,
    answers for Lapse's errors, and runs of ADK's (`/run`, `/run_sse`, `/run_live`) that
    resurrect their session.
    For the application's lifetime the store is open and, unless `sweep` is False, swept;
    at its end the service is closed.

    Streams of notices end with that lifetime. A server that waits for open requests before
    (uvicorn does) lets them go at once when it calls each function of
    `app.state.lapse_endings` first, as `lapse serve` does.

    Args:
        app: the application.
        service: the service that its agents run on.
        sweep: False where another process sweeps the store.
        default_app: the app of runs that name none (ADK's ADK_DEFAULT_APP_NAME).
        watch: how the sessions are watched by `GET …/lifecycle/events`.
    """
    metrics = Metrics(service.store)
    service.feed.subscribe(metrics.count_change)
    service.feed.subscribe(log_change)

    def report(swept: SweepReport) -> None:
        metrics.count_sweep(swept)
        log_sweep(swept)

    sweeper = Sweeper(service.store, service.feed, on_report=report, on_fault=metrics.count_fault)
    watcher = Watcher(service.store, service.feed, watch)
    app.state.lapse_watcher = watcher
    app.state.lapse_endings = [watcher.end]
    app.include_router(lifecycle_routes(service))
    app.include_router(notice_routes(service, watcher))
    app.include_router(
        health_routes(service.store, metrics, sweeper_is_well=lambda: not sweep or sweeper.is_alive)
    )
    add_client(app)
    install_faults(app)
    app.add_middleware(SessionInFront, default_app=default_app)
    app.add_middleware(StreamsInFront)
    app.router.lifespan_context = _within(
        service, sweeper if sweep else None, watcher, app.router.lifespan_context
    )


def _within(
    service: LapseSessionService, sweeper: Sweeper | None, watcher: Watcher, inner: Any
) -> Any:
    """Return a lifespan that has the store open, swept and watched around the application's own."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(service)
            if sweeper is not None:
                await stack.enter_async_context(sweeper)
            await stack.enter_async_context(watcher)
            yield await stack.enter_async_context(inner(app))

    return lifespan
