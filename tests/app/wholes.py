"""The objects that `lapse serve`, `mount`, ADK's registry and `lapse sweep --watch` make."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI

import lapse.cli.serve
import lapse.cli.serving
import lapse.web.application
import lapse.web.server
from lapse import Lapse, LapseSessionService, mount, session_service
from lapse.adk.events import REMEMBERED
from lapse.adoption.adopter import Adopter
from lapse.auth.gate import CallerMiddleware
from lapse.cli.main import app as commands
from lapse.core.background import Background
from lapse.limits.body import BodyMiddleware
from lapse.notices.watcher import Watcher
from lapse.retention.keeper import RetentionKeeper
from lapse.sweep.sweeper import Sweeper
from lapse.telemetry.logs import LogOptions
from lapse.ttl.policy import TtlPolicy
from lapse.web.middleware.address import ClientAddressMiddleware
from lapse.web.middleware.app_state import AppStateMiddleware
from lapse.webhooks.sender import WebhookSender
from parts import Store, store_with_parts


@dataclass
class Whole:
    """The objects that one way of running Lapse has made; None or empty where it has none."""

    store: Store
    policy: TtlPolicy
    sweeper: Sweeper | None
    adopter: Adopter | None
    watcher: Watcher | None = None
    webhooks: WebhookSender | None = None
    retention: RetentionKeeper | None = None
    service: LapseSessionService | None = None
    app: FastAPI | None = None
    operators: Any = None
    brakes_of_pages: Any = None
    server: uvicorn.Config | None = None
    listens: list[tuple[str, int]] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    logged: list[LogOptions] = field(default_factory=list)
    remembered_events: int = field(default_factory=lambda: REMEMBERED.most)
    adk: dict[str, Any] = field(default_factory=dict)

    def middleware(self, kind):
        """Return the arguments of a layer of the application."""
        assert self.app is not None
        return next(layer.kwargs for layer in self.app.user_middleware if layer.cls is kind)

    @property
    def gate(self):
        return self.middleware(CallerMiddleware)["authentication"]

    @property
    def caller_options(self):
        return self.gate.authenticator._options

    @property
    def proxies(self):
        return [str(network) for network in self.middleware(ClientAddressMiddleware)["proxies"]]

    @property
    def app_state_by(self):
        return self.middleware(AppStateMiddleware)["by"]

    @property
    def bounds(self):
        """Return the bounds of requests, which are the same for the protocol of a server."""
        bounds = self.middleware(BodyMiddleware)["bounds"]
        if self.server is not None:
            assert self.server.ws_max_size == bounds.body
            assert self.server.http.bounds == bounds
        return bounds

    @property
    def brakes(self):
        """Return when the sweeper stops, which is the same for a sweep by hand."""
        options = self.sweeper._brakes._options
        assert self.brakes_of_pages in {None, options}
        return options


def _of_lapse(lapse: Lapse, **more) -> Whole:
    return Whole(
        lapse.store,
        lapse.policy,
        lapse.sweeper if lapse.sweeps else None,
        lapse.adopter,
        watcher=lapse.watcher,
        webhooks=lapse.webhooks,
        retention=lapse.retention,
        **more,
    )


def _of_app(app: FastAPI, pages, **more) -> Whole:
    (options, brakes) = pages[-1]
    return _of_lapse(
        app.state.lapse,
        service=app.state.lapse.sessions,
        app=app,
        operators=options,
        brakes_of_pages=brakes,
        **more,
    )


def _pages(monkeypatch):
    """Return a list that gets what each application's pages for operators are made with."""
    pages, add = [], lapse.web.application.add_operators

    def add_operators(app, service, options, *, sweeps, brakes):
        pages.append((options, brakes))
        add(app, service, options, sweeps=sweeps, brakes=brakes)

    monkeypatch.setattr(lapse.web.application, "add_operators", add_operators)
    return pages


def _logged(monkeypatch):
    logged = []
    monkeypatch.setattr("lapse.telemetry.logs.configure_logging", logged.append)
    return {"logged": logged}


def _told_adk(monkeypatch):
    """Return a dictionary that gets what ADK is told; ADK itself is told nothing of it."""
    told, server = {}, lapse.web.server
    make, artifacts = server.app_of_agents, server.artifact_service

    def app_of_agents(*arguments, options, **more):
        told.update(options)
        return make(*arguments, options={}, **more)

    def artifact_service(folder, uri, **more):
        told["artifact_service_uri"] = uri
        return artifacts(folder, "memory://", **more)

    def switch_features(options):
        told["enable_features"] = options.enable_features
        told["disable_features"] = options.disable_features

    monkeypatch.setattr(server, "app_of_agents", app_of_agents)
    monkeypatch.setattr(server, "artifact_service", artifact_service)
    monkeypatch.setattr(server, "switch_features", switch_features)
    monkeypatch.setattr(server, "check_plugins", lambda options: None)
    return told


def serve(monkeypatch) -> Whole:
    """Return the objects of `lapse serve`."""
    pages, logged, told = _pages(monkeypatch), _logged(monkeypatch), _told_adk(monkeypatch)
    listens, served = [], []

    def listen(host, port, **_):
        listens.append((host, port))
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        return listener

    monkeypatch.setattr(lapse.cli.serve, "listen", listen)
    monkeypatch.setattr(lapse.cli.serving, "run_async", lambda opening: opening.close())
    serve_here, workers = lapse.cli.serve.serve_here, []

    def with_workers(serving):
        workers.append(serving.settings.workers)
        serve_here(serving, on_started=lambda: None)

    monkeypatch.setattr(lapse.cli.serve, "serve_with_workers", with_workers)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, **_: served.append(self.config))
    commands(["serve"], standalone_mode=False)
    (config,) = served
    app = config.app
    while not isinstance(app, FastAPI):
        app = app._app
    return _of_app(app, pages, server=config, listens=listens, adk=told, workers=workers, **logged)


def mounted(monkeypatch) -> Whole:
    """Return the objects of an application that Lapse is mounted in."""
    pages, app = _pages(monkeypatch), FastAPI()
    store = store_with_parts("postgresql://nobody@127.0.0.1:1/none")
    mount(app, LapseSessionService(store), apps=["app"])
    return _of_app(app, pages)


def registry(_monkeypatch) -> Whole:
    """Return the objects of ADK's own server."""
    service = session_service("lapse:")
    works = [
        work._step.__self__ if isinstance(work, Background) else work for work in service._beside
    ]

    def of(kind):
        return next((work for work in works if isinstance(work, kind)), None)

    assert of(TtlPolicy) is service.policy
    return Whole(
        service.store,
        service.policy,
        of(Sweeper),
        of(Adopter),
        webhooks=of(WebhookSender),
        retention=of(RetentionKeeper),
        service=service,
    )


class _Entered(Exception):  # noqa: N818 - it ends a command, and is no error
    pass


def sweep(monkeypatch) -> Whole:
    """Return the objects of `lapse sweep --watch`."""
    logged, entered = _logged(monkeypatch), []

    async def enter(self):
        entered.append(self)
        for signal in (2, 15):
            asyncio.get_running_loop().remove_signal_handler(signal)
        raise _Entered

    monkeypatch.setattr(Lapse, "__aenter__", enter)
    with suppress(_Entered):
        commands(["sweep", "--watch"], standalone_mode=False)
    return _of_lapse(entered[0], **logged)


WAYS = {"serve": serve, "mount": mounted, "registry": registry, "sweep": sweep}
