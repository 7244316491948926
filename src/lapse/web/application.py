"""Lapse's routes and its sweeper in a FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from lapse.adk.routes import lifecycle_routes
from lapse.adk.run_sse import opener_for, opener_of
from lapse.adk.service import LapseSessionService
from lapse.adoption.adopter import Adopter
from lapse.adoption.settings import Adopt
from lapse.artifacts.sweeper import ArtifactSweeper
from lapse.auth import Authentication, Gate
from lapse.auth.addresses import Network
from lapse.core.background import Background
from lapse.dashboard import add_operators
from lapse.dashboard.options import OperatorOptions
from lapse.demo.page import add_client
from lapse.limits.middleware import BoundsInFront
from lapse.limits.rules import Bounds
from lapse.notices.routes import StreamsInFront, notice_routes
from lapse.notices.rules import WatchOptions
from lapse.notices.watcher import Watcher
from lapse.quotas.metrics import QuotaMetrics
from lapse.runs.detached import DetachedRoute
from lapse.runs.metrics import RunMetrics
from lapse.runs.routes import run_routes
from lapse.runs.rules import RunLimits
from lapse.runs.runs import Runs
from lapse.sweep.rules import BrakeOptions
from lapse.sweep.sweeper import Sweeper, SweepReport
from lapse.telemetry.logs import log_change, log_sweep
from lapse.telemetry.metrics import Metrics, Where
from lapse.ttl.metrics import TtlMetrics
from lapse.web.errors import install_faults
from lapse.web.health import health_routes
from lapse.web.middleware.address import AddressInFront
from lapse.web.middleware.session import SessionInFront

if TYPE_CHECKING:
    from google.adk.runners import Runner


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What Lapse does in an application.

    Attributes:
        sweep: False where another process sweeps the store.
        default_app: the app of runs that name none (ADK's ADK_DEFAULT_APP_NAME).
        adopt: which sessions that stock ADK leaves in the store are adopted, while it is swept.
        run_limits: how much of running this process does.
        watch: how the sessions are watched by `GET …/lifecycle/events`.
        proxies: whose `X-Forwarded-For` is believed when creations are counted by address.
        operators: what opens the operators' pages.
        authentication: how callers are known, and what they may call; None: not at all.
        bounds: how much of a request is taken in, the application's own routes included.
        brakes: when the sweeper stops before what cannot be undone.
    """

    sweep: bool = True
    default_app: str | None = None
    adopt: Adopt = Adopt.OFF
    run_limits: RunLimits = field(default_factory=RunLimits)
    watch: WatchOptions = field(default_factory=WatchOptions)
    proxies: tuple[Network, ...] = ()
    operators: OperatorOptions = field(default_factory=OperatorOptions)
    authentication: Authentication | None = None
    bounds: Bounds = field(default_factory=Bounds)
    brakes: BrakeOptions = field(default_factory=BrakeOptions)


def mount(
    app: FastAPI,
    service: LapseSessionService,
    options: MountOptions = MountOptions(),
    *,
    artifacts: ArtifactSweeper | None = None,
    runners: Iterable[Runner] = (),
) -> Runs:
    """Add Lapse to an application that has not started yet.

    It gains the lifecycle routes, `/lapse/client.js`, `/livez`, `/readyz` and `/metrics`,
    the operators' pages at `/lapse/` (closed until a token is set),
    answers for Lapse's errors, and runs of ADK's (`/run`, `/run_sse`, `/run_live`) that
    resurrect their session. Where there are agents to run, by ADK's `/run_sse` in the application
    or by `runners`, it also gains `…/run`, runs that outlive their connection, and `/run_sse` can
    be detached.
    For the application's lifetime the store is open and, unless told otherwise, swept;
    at its end the service is closed.

    Streams of notices end with that lifetime. A server that waits for open requests before
    (uvicorn does) lets them go at once when it calls each function of
    `app.state.lapse_endings` first, as `lapse serve` does.

    Args:
        app: the application.
        service: the service that its agents run on.
        options: what Lapse does in it.
        artifacts: deletes artifacts of sessions that ended while nobody had spoken to them,
            where the store's rules say that these are noted.
        runners: runners for an application without ADK's own routes, one for each app.

    Returns:
        The runs, for whoever wants to `drain` them before the application ends.
    """
    metrics = Metrics(service.store)
    app.state.lapse_metrics = metrics
    service.feed.subscribe(metrics.count_change)
    metrics.registry.register(TtlMetrics(service.policy, metrics.apps))
    metrics.registry.register(QuotaMetrics(service.admission))
    service.feed.subscribe(log_change)

    def report(swept: SweepReport) -> None:
        metrics.count_sweep(swept)
        log_sweep(swept)

    sweeper = Sweeper(
        service.store,
        service.feed,
        on_report=report,
        on_fault=metrics.count_fault,
        brakes=options.brakes,
    )
    watcher = Watcher(service.store, service.feed, options.watch)
    metrics.watch_streams(lambda: watcher.streams)
    app.state.lapse_watcher = watcher
    app.state.lapse_endings = [watcher.end]
    app.include_router(lifecycle_routes(service))
    app.include_router(notice_routes(service, watcher))
    app.include_router(
        health_routes(
            service.store, metrics, sweeper_is_well=lambda: not options.sweep or sweeper.is_alive
        )
    )
    runs = Runs(service, options.run_limits, RunMetrics(metrics.registry, metrics.apps))
    opener = opener_for(runners, service) if runners else opener_of(app)
    if opener is not None:
        app.include_router(run_routes(service, runs, opener))
        app.router.routes.insert(0, DetachedRoute(runs, opener, default_app=options.default_app))
    add_client(app)
    add_operators(app, service, options.operators, sweeps=options.sweep, brakes=options.brakes)
    install_faults(app, on_outage=partial(metrics.count_store_error, Where.REQUEST))
    # Innermost: behind CORS and ADK's checks of Host and Origin, which answer by themselves.
    if options.authentication is not None:
        app.user_middleware.append(
            Middleware(Gate, authentication=options.authentication, look_up=service.lifecycle)
        )
    app.user_middleware.append(
        Middleware(SessionInFront, default_app=options.default_app, on_run=metrics.count_plain_run)
    )
    app.add_middleware(
        AddressInFront,
        proxies=options.proxies,
        counted=service.admission.quotas.by_address,
    )
    app.add_middleware(StreamsInFront)
    app.add_middleware(BoundsInFront, bounds=options.bounds)
    beside: list[Background] = []
    if options.sweep and options.adopt is not Adopt.OFF:
        ttl = service.policy.default
        beside.append(Adopter(service.store, service.feed, scope=options.adopt, ttl=ttl).running())
    if artifacts is not None and service.store.rules.artifacts:
        beside.append(artifacts.running())
    app.router.lifespan_context = _within(
        service,
        runs,
        [*([sweeper] if options.sweep else []), watcher, *beside],
        app.router.lifespan_context,
    )
    return runs


def _within(
    service: LapseSessionService,
    runs: Runs,
    beside: Sequence[AbstractAsyncContextManager[Any]],
    inner: Any,
) -> Any:
    """Return a lifespan with the store open, and work beside, around the application's own."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(service)
            await service.policy.start()
            for work in beside:
                await stack.enter_async_context(work)
            await runs.start()
            state = await stack.enter_async_context(inner(app))
            # Before ADK closes the runners.
            stack.push_async_callback(runs.drain)
            yield state

    return lifespan
