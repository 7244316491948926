"""Lapse's routes and its middleware in a FastAPI application."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware

from lapse.adk.agents import ServedApps, served_apps
from lapse.adk.answers import RENDERED, SessionResponse, join_stored_sessions
from lapse.adk.artifacts import guard_artifacts
from lapse.adk.creation import check_creations
from lapse.adk.events import REMEMBERED
from lapse.adk.keyed_creation import key_creates
from lapse.adk.listing import ListRoute
from lapse.adk.private.servers import default_app_of, server_of
from lapse.adk.private.wire import answer_sessions_with
from lapse.adk.routes import lifecycle_routes, pin_routes
from lapse.adk.run_sse import opener_for, opener_of
from lapse.adk.service import LapseSessionService
from lapse.artifacts.sweeper import ArtifactSweeper
from lapse.artifacts.uploads import Uploads
from lapse.auth import Authentication, CallerMiddleware, OwnershipMiddleware
from lapse.auth.addresses import current_site
from lapse.auth.principals import Role, current_principal
from lapse.core.arguments import check
from lapse.core.errors import InvalidValueError
from lapse.dashboard.entrance import add_operators
from lapse.dashboard.options import OperatorOptions
from lapse.limits.body import BodyMiddleware
from lapse.limits.head import HeadMiddleware
from lapse.limits.live import LiveMessageMiddleware
from lapse.notices.metrics import count_streams
from lapse.notices.routes import NoticeStreamMiddleware, notice_routes
from lapse.notices.watcher import Watcher
from lapse.quotas.metrics import QuotaMetrics
from lapse.runs.detached import detached_routes
from lapse.runs.metrics import RunMetrics
from lapse.runs.routes import run_routes
from lapse.runs.runs import Runs
from lapse.settings import Settings
from lapse.sweep.sweeper import Sweeper
from lapse.telemetry.metrics import Metrics, Where
from lapse.ttl.metrics import TtlMetrics
from lapse.web.client import add_client
from lapse.web.counts import count_store
from lapse.web.errors import install_faults
from lapse.web.health import health_routes
from lapse.web.lean import FaultRoute, LeanRules, LeanSessions
from lapse.web.life import Life, LifeMiddleware, Whole
from lapse.web.middleware.acts import ActsMiddleware
from lapse.web.middleware.address import ClientAddressMiddleware
from lapse.web.middleware.app_state import AppStateMiddleware
from lapse.web.middleware.apps import DefaultAppMiddleware, ServedAppsMiddleware
from lapse.web.middleware.headers import ExposedHeaders
from lapse.web.middleware.session import RunSessionMiddleware

if TYPE_CHECKING:
    from lapse.adk.memory import BaseMemoryService
    from lapse.adk.run_sse import Runner
    from lapse.retention.keeper import RetentionKeeper
    from lapse.webhooks.sender import WebhookSender


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of Lapse that an application needs.

    Attributes:
        whole: the work beside its requests.
        service: the service that its agents run on.
        watcher: tells its streams of notices.
        metrics: where it counts.
        sweeper: what sweeps the store in this process; None: another process does.
        webhooks: what sends events to the operators' webhook; None: there is none.
        retention: what keeps the retention policy in this process; None: nothing does.
        operators: what opens the operators' pages.
        authentication: how callers are known, and what they may call; None: not at all.
        runners: runners for an application without ADK's own routes, one for each app.
        apps: apps that are served beside those of `runners` and of ADK's routes; None: no others.
        default_app: the app of runs that name none; None: the one of ADK's server, if any.
    """

    whole: Whole
    service: LapseSessionService
    watcher: Watcher
    metrics: Metrics
    sweeper: Sweeper | None
    webhooks: WebhookSender | None
    retention: RetentionKeeper | None
    operators: OperatorOptions
    authentication: Authentication | None
    runners: Iterable[Runner]
    apps: Container[str] | None
    default_app: str | None


def check_mounted(
    app: object,
    runners: object,
    authentication: object,
    artifacts: object,
    default_app: object,
) -> None:
    """Check the types of what `mount` is given.

    Raises:
        InvalidValueError: one is of another type.
    """
    check(
        app=(app, FastAPI),
        runners=(runners, Iterable),
        artifacts=(artifacts, ArtifactSweeper | None),
        authentication=(authentication, Authentication | None),
        default_app=(default_app, str | None),
    )


def add_lapse(app: FastAPI, settings: Settings, parts: Parts) -> Runs:
    """Add Lapse's routes, pages, metrics and middleware to an application; return its runs.

    The application's lifespan, or its first request, begins what works beside its requests.

    Raises:
        InvalidValueError: nothing tells which apps the application serves.
    """
    service, metrics = parts.service, parts.metrics
    served = served_apps(app, runners=parts.runners, apps=parts.apps)
    if parts.default_app is None and (server := server_of(app)) is not None:
        parts = replace(parts, default_app=default_app_of(server))
    runs = Runs(service, settings.run_limits, RunMetrics(metrics.registry, metrics.apps))
    app.state.lapse_metrics = metrics
    app.state.lapse_watcher = parts.watcher
    app.state.lapse_runs = runs
    app.state.lapse_key_rules = settings.key_rules
    app.state.lapse_endings = [parts.watcher.end]
    _register_metrics(parts)
    _add_routes(app, settings, parts, runs)
    install_faults(app, on_outage=partial(metrics.count_store_error, Where.REQUEST))
    check_creations(app)
    key_creates(app.routes, settings.key_rules)
    _add_middleware(app, settings, parts, runs, served)
    return runs


def _register_metrics(parts: Parts) -> None:
    service, metrics = parts.service, parts.metrics
    count_store(
        service.store,
        service.feed,
        metrics,
        webhooks=parts.webhooks,
        keeper=parts.retention,
        retention_file=parts.operators.retention_file,
        is_retention_possible=service.has_stored_events,
    )
    QuotaMetrics(metrics.registry, service.admission)
    count_streams(metrics.registry, parts.watcher)
    metrics.registry.register(TtlMetrics(service.policy, metrics.apps))


def _add_routes(app: FastAPI, settings: Settings, parts: Parts, runs: Runs) -> None:
    service, sweeper = parts.service, parts.sweeper
    answer_sessions_with(SessionResponse)
    for remembered in (REMEMBERED, RENDERED):
        remembered.keep(settings.remembered_events)
    uploads = Uploads(service.store, settings.artifact_bytes_per_user)
    app.state.lapse_uploads = uploads
    guard_artifacts(app.routes, service, uploads)
    if service.has_stored_events and (server := server_of(app)) is not None:
        join_stored_sessions(app.routes, service, server)
    app.router.routes.insert(0, ListRoute(service))
    app.include_router(lifecycle_routes(service))
    app.include_router(pin_routes(service))
    app.include_router(notice_routes(service, parts.watcher))
    if settings.self_erasure:
        _add_erasure(app, parts)
    app.include_router(
        health_routes(
            service.store,
            parts.metrics,
            sweeper_is_well=lambda: sweeper is None or sweeper.is_alive,
        )
    )
    opener = opener_for(parts.runners, service) if parts.runners else opener_of(app)
    if opener is not None:
        keys = settings.key_rules
        app.include_router(run_routes(service, runs, opener, keys))
        routes = detached_routes(runs, opener, keys, default_app=parts.default_app)
        app.router.routes[:0] = routes
    add_client(app)
    add_operators(app, service, parts.operators, sweeps=sweeper is not None, brakes=settings.brakes)


def _add_erasure(app: FastAPI, parts: Parts) -> None:
    """Add the routes by which users erase what is kept of them.

    Raises:
        InvalidValueError: nobody is authenticated, so anybody could erase anybody.
    """
    from lapse.erasure.routes import erasure_routes

    if parts.authentication is None:
        raise InvalidValueError(
            "LAPSE_SELF_ERASURE", "needs authentication (LAPSE_AUTH): anybody could erase anybody"
        )
    app.include_router(erasure_routes(parts.service, memory_of(app)))


def memory_of(app: FastAPI) -> BaseMemoryService | None:
    """Return the memory service of ADK's routes in an application; None: it has none."""
    return getattr(server_of(app), "memory_service", None)


def _add_middleware(
    app: FastAPI, settings: Settings, parts: Parts, runs: Runs, served: ServedApps
) -> None:
    # These come after CORS and ADK's checks of Host and Origin, which answer by themselves. The
    # caller is known before the body is read, and the body is read before anything asks it.
    authentication = parts.authentication
    inner = [
        Middleware(BodyMiddleware, bounds=settings.bounds, caller=_caller),
        Middleware(
            ServedAppsMiddleware,
            served=served,
            default_app=parts.default_app,
            authenticated=authentication is not None,
        ),
        Middleware(LiveMessageMiddleware, bounds=settings.bounds),
        Middleware(AppStateMiddleware, by=settings.app_state_by),
        Middleware(RunSessionMiddleware, runs=runs, default_app=parts.default_app),
    ]
    if authentication is not None:
        look_up = parts.service.lifecycle
        inner = [
            Middleware(CallerMiddleware, authentication=authentication, look_up=look_up),
            inner[0],
            Middleware(OwnershipMiddleware),
            *inner[1:],
            Middleware(ActsMiddleware, store=parts.service.store),
        ]
    if parts.default_app is not None and server_of(app) is not None:
        inner.insert(0, Middleware(DefaultAppMiddleware, default_app=parts.default_app))
    app.user_middleware.extend(inner)
    # These come before them; the last one is the outermost.
    life = Life(parts.whole, runs, parts.watcher)
    life.run_within(app)
    app.add_middleware(LifeMiddleware, life=life)
    app.add_middleware(
        ClientAddressMiddleware,
        proxies=settings.proxies,
        counted=parts.service.admission.quotas.by_address,
    )
    app.add_middleware(ExposedHeaders)
    app.add_middleware(NoticeStreamMiddleware)
    app.add_middleware(HeadMiddleware)
    if server_of(app) is not None:
        rules = LeanRules(
            life,
            authentication,
            tuple(settings.proxies),
            served,
            settings.app_state_by,
            settings.bounds,
        )
        app.router.routes.insert(0, FaultRoute())
        app.add_middleware(LeanSessions, application=app, rules=rules)


def _caller() -> str | None:
    """Return whose large bodies are counted together: a user's, or those of an address.

    None, which means no one's: services and operators act for many users, and a request may come
    from no address.
    """
    principal = current_principal()
    if principal is None or not principal.name:
        site = current_site()
        return None if site is None else f"address {site}"
    return f"user {principal.name}" if principal.role is Role.USER else None
