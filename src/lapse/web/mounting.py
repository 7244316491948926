"""Lapse's routes and its sweeper in a FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from lapse.adopt.artifacts import ArtifactSweeper
from lapse.adopt.background import Background
from lapse.adopt.continuous import Adopter
from lapse.logs import log_change, log_sweep
from lapse.metrics import Metrics
from lapse.policy_metrics import TtlMetrics
from lapse.sessions import LapseSessionService
from lapse.settings import Adopt
from lapse.sweeper import Sweeper, SweepReport
from lapse.web.faults import install_faults
from lapse.web.front import SessionInFront
from lapse.web.health import health_routes
from lapse.web.lifecycle import lifecycle_routes


def mount(
    app: FastAPI,
    service: LapseSessionService,
    *,
    sweep: bool = True,
    default_app: str | None = None,
    artifacts: ArtifactSweeper | None = None,
    adopt: Adopt = Adopt.OFF,
) -> None:
    """Add Lapse to an application that has not started yet.

    It gains the lifecycle routes, `/livez`, `/readyz` and `/metrics`, answers for Lapse's
    errors, and runs of ADK's (`/run`, `/run_sse`, `/run_live`) that resurrect their session.
    For the application's lifetime the store is open and, unless `sweep` is False, swept;
    at its end the service is closed.

    Args:
        app: the application.
        service: the service that its agents run on.
        sweep: False where another process sweeps the store.
        default_app: the app of runs that name none (ADK's ADK_DEFAULT_APP_NAME).
        artifacts: deletes artifacts of sessions that ended while nobody had spoken to them,
            where the store's rules say that these are noted.
        adopt: which sessions that stock ADK leaves in the store are adopted, while it is swept.
    """
    metrics = Metrics(service.store)
    service.feed.subscribe(metrics.count_change)
    metrics.registry.register(TtlMetrics(service.policy))
    service.feed.subscribe(log_change)

    def report(swept: SweepReport) -> None:
        metrics.count_sweep(swept)
        log_sweep(swept)

    sweeper = Sweeper(service.store, service.feed, on_report=report, on_fault=metrics.count_fault)
    app.include_router(lifecycle_routes(service))
    app.include_router(
        health_routes(service.store, metrics, sweeper_is_well=lambda: not sweep or sweeper.is_alive)
    )
    install_faults(app)
    app.add_middleware(SessionInFront, default_app=default_app)
    beside: list[Background] = []
    if sweep and adopt is not Adopt.OFF:
        ttl = service.policy.default
        beside.append(Adopter(service.store, service.feed, scope=adopt, ttl=ttl).running())
    if artifacts is not None and service.store.rules.artifacts:
        beside.append(artifacts.running())
    app.router.lifespan_context = _within(
        service, [*([sweeper] if sweep else []), *beside], app.router.lifespan_context
    )


def _within(
    service: LapseSessionService, beside: Sequence[AbstractAsyncContextManager[Any]], inner: Any
) -> Any:
    """Return a lifespan with the store open, and work beside, around the application's own."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(service)
            await service.policy.start()
            for work in beside:
                await stack.enter_async_context(work)
            yield await stack.enter_async_context(inner(app))

    return lifespan
