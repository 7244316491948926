"""`Lapse`, the composition root: it makes every part from the settings, and starts and stops all.

What runs Lapse (`lapse serve`, `lapse sweep`, your own application, ADK's registry) is put together
here and nowhere else. ADK takes seconds to import, so it is not imported before its service is
needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lapse.adk.maintenance import maintenance_of
from lapse.adk.server_options import ServerOptions
from lapse.adoption.adopter import Adopter
from lapse.adoption.settings import Adopt
from lapse.auth.options import AuthMode
from lapse.core.arguments import check
from lapse.core.background import Work
from lapse.core.errors import SettingsError
from lapse.core.feed import Feed
from lapse.core.lifecycle import Rules
from lapse.core.messages import UsedByRule
from lapse.notices.watcher import Watcher
from lapse.runs.store import RunStore
from lapse.settings import Settings, load_settings, unknown_settings
from lapse.store import store_from_url
from lapse.store.database import Database
from lapse.sweep.logs import log_sweep
from lapse.sweep.maintenance import Maintenance
from lapse.sweep.sweeper import Sweeper, SweepReport
from lapse.telemetry.logs import log_change, log_expiries
from lapse.ttl.policy import TtlPolicy

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lapse.adk.run_sse import Runner
    from lapse.adk.service import LapseSessionService
    from lapse.artifacts.sweeper import ArtifactSweeper
    from lapse.auth import Authentication
    from lapse.runs.runs import Runs
    from lapse.sweep.metrics import SweepMetrics


class Lapse:
    """Sessions in a store, and all that works on them, as settings say.

    It is an asynchronous context manager. Entering it opens the store and starts what the settings
    say: sweeping, learning TTLs, telling other processes of changes, adopting. Leaving it stops all
    of that and closes the store. An application that it was added to enters and leaves it in its
    lifespan. It may be entered any number of times, on any event loop, and runs once at a time.

    Args:
        store_url: where the sessions live; it wins over the settings.
        settings: by default those of the environment and `.env.local`.
        notes_artifacts: whether ended sessions go to the outbox of artifacts. It must be False if
            no application of `app`, here or in another process, empties the outbox.
        used_by: whose message makes a session used, such as `anyone,shop=user`; it wins over the
            settings.

    Raises:
        SettingsError: the settings are wrong.
        InvalidValueError: no store has such a URL.
    """

    def __init__(
        self,
        store_url: str | None = None,
        settings: Settings | None = None,
        *,
        notes_artifacts: bool = False,
        used_by: UsedByRule | str | None = None,
    ) -> None:
        check(
            store_url=(store_url, str | None),
            settings=(settings, Settings | None),
            notes_artifacts=(notes_artifacts, bool),
        )
        settings = settings or load_settings(store_url=store_url or None)
        if store_url:
            settings = settings.model_copy(update={"store_url": store_url})
        if used_by is not None:
            settings = settings.model_copy(update={"used_by": UsedByRule.parse(used_by)})
        self._set_up(settings, notes_artifacts=notes_artifacts)
        store_from_url(settings.store_url)  # a wrong URL raises now, and not at the first use

    def _set_up(self, settings: Settings, *, notes_artifacts: bool) -> None:
        if problems := [*unknown_settings(), *settings.problems()]:
            raise SettingsError(problems)
        self.settings = settings
        self._notes_artifacts = notes_artifacts
        self._counted: list[SweepMetrics] = []
        self._works, self._artifacts = list[Work](), list[Work]()
        self._running_on: asyncio.AbstractEventLoop | None = None
        self._is_local = False

    @classmethod
    def _around(
        cls, service: LapseSessionService, settings: Settings, *, notes_artifacts: bool
    ) -> Self:
        """Return a Lapse around a service; what its maker did not choose, the settings do."""
        lapse = cls.__new__(cls)
        service.used_by = service.used_by or settings.used_by
        settings = settings.model_copy(update={"used_by": service.used_by})
        lapse._set_up(settings, notes_artifacts=notes_artifacts)  # noqa: SLF001
        service.store.default_to(lapse._rules, settings.connection)  # noqa: SLF001
        service.default_to(settings.targets, settings.ttl_policy, settings.quotas)
        lapse.sessions, lapse.store = service, service.store
        lapse.feed, lapse.policy = service.feed, service.policy
        lapse.feed.subscribe(log_change, of_many=log_expiries)
        return lapse

    @cached_property
    def store(self) -> Database:
        """The store, which opens at its first use."""
        return store_from_url(self.settings.store_url, self._rules, self.settings.connection)

    @property
    def _rules(self) -> Rules:
        rules = self.settings.rules
        return replace(rules, artifacts=rules.artifacts and self._notes_artifacts)

    @cached_property
    def feed(self) -> Feed:
        """The feed of the changes that this process makes."""
        feed = Feed()
        feed.subscribe(log_change, of_many=log_expiries)
        return feed

    @cached_property
    def policy(self) -> TtlPolicy:
        """The policy that says which TTL new sessions get."""
        settings = self.settings
        return TtlPolicy(self.store, self.feed, settings.targets, settings.ttl_policy)

    @cached_property
    def sessions(self) -> LapseSessionService:
        """ADK's session service on the store; work beside it runs while the Lapse is entered."""
        return self._service()

    @cached_property
    def sweeper(self) -> Sweeper:
        """The sweeper of the store; it is started if this process sweeps."""
        return Sweeper(
            self.store,
            self.feed,
            on_report=self._swept,
            on_fault=self._failed,
            brakes=self.settings.brakes,
        )

    @cached_property
    def maintenance(self) -> Maintenance:
        """The maintenance that keeps the store small; every process runs it."""
        return Maintenance((*maintenance_of(self.store), RunStore(self.store).maintain))

    @cached_property
    def watcher(self) -> Watcher:
        """The watcher that tells browsers and other processes of changes."""
        return Watcher(self.store, self.feed, self.settings.watch)

    @cached_property
    def adopter(self) -> Adopter | None:
        """The adopter of empty sessions that stock ADK leaves in the store; None if it is off."""
        if not self.sweeps or self.settings.adopt is Adopt.OFF:
            return None
        settings = self.settings
        return Adopter(
            self.store,
            self.feed,
            scope=settings.adopt,
            ttl=self.policy.default,
            used_by=settings.used_by,
        )

    @property
    def sweeps(self) -> bool:
        """Return whether this process sweeps the store."""
        return self.settings.sweeper and self.settings.cleanup_enabled

    def _service(self, beside: Sequence[Work] = ()) -> LapseSessionService:
        from lapse.adk.events import REMEMBERED
        from lapse.adk.service import LapseSessionService

        REMEMBERED.keep(self.settings.remembered_events)
        return LapseSessionService(
            self.store,
            feed=self.feed,
            policy=self.policy,
            quotas=self.settings.quotas,
            used_by=self.settings.used_by,
            beside=beside,
        )

    def _keeping(self) -> list[Work]:
        works: list[Work] = [self.policy, self.maintenance]
        if self.sweeps:
            works.append(self.sweeper)
        if self.adopter is not None:
            works.append(self.adopter.running())
        return works

    def _swept(self, report: SweepReport) -> None:
        for metrics in self._counted:
            metrics.count_sweep(report)
        log_sweep(report)

    def _failed(self, fault: Exception) -> None:
        for metrics in self._counted:
            metrics.count_fault(fault)

    async def __aenter__(self) -> Self:
        """Open the store and start everything.

        Raises:
            StoreUnavailableError: the store does not answer.
            StoreRefusedError: the store cannot be used.
        """
        if self._running_on is not None and not self._running_on.is_closed():
            raise RuntimeError("this Lapse runs already: enter it once, or let its application do")
        await self.store.open()
        try:
            await self.begin()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything, finish what was begun, and close the store."""
        try:
            await self.end()
        finally:
            made = self.__dict__.get("sessions")
            await (self.store.close() if made is None else made.close())

    async def begin(self) -> None:
        """Start everything on the running event loop; the store opens at its first use."""
        self._works = [*self._keeping(), self.watcher, *self._artifacts]
        self._running_on = asyncio.get_running_loop()
        for work in self._works:
            await work.start()

    async def end(self) -> None:
        """Stop everything; the store stays open."""
        try:
            # All at once, because each waits a little for its step in hand.
            await asyncio.gather(*(work.stop() for work in self._works))
        finally:
            self._running_on = None

    def mount(
        self,
        app: FastAPI,
        *,
        runners: Iterable[Runner] = (),
        apps: Container[str] | None = None,
        artifacts: ArtifactSweeper | None = None,
        authentication: Authentication | None = None,
        default_app: str | None = None,
    ) -> Runs:
        """Add Lapse to an application that has not started yet; its lifespan runs Lapse.

        It gains the lifecycle routes, `/lapse/client.js`, `/livez`, `/readyz`, `/metrics`, the
        operators' pages at `/lapse/` (closed until a token is set) and answers for Lapse's errors,
        and its runs by ADK resurrect their session. With agents to run, by ADK's `/run_sse` or by
        `runners`, it also gains `…/run`: runs that outlive their connection.

        uvicorn ends the streams of notices and runs when it stops; another server that waits for
        open requests calls `app.state.lapse_endings` first. If nobody is authenticated, one warning
        names the routes that are then open to everybody.

        Args:
            app: the application.
            runners: for an application without ADK's own routes, one for each app.
            apps: the names of what is served beside the apps of `runners`, and beside those that
                ADK's loader lists, where the application has ADK's routes already. It is asked at
                each request; whatever names another app is answered with 404.
            artifacts: empties the outbox of artifacts, if the store's rules fill it.
            authentication: how callers are authenticated; by default as the settings say.
            default_app: the app of runs that name none (ADK's ADK_DEFAULT_APP_NAME).

        Returns: the runs, to `drain` before the application ends.

        Raises:
            InvalidValueError: the application has neither ADK's routes nor runners nor `apps`.
        """
        from lapse.adk.events import REMEMBERED
        from lapse.auth import authentication_of
        from lapse.sweep.metrics import SweepMetrics
        from lapse.telemetry.metrics import Metrics
        from lapse.web.application import Parts, add_lapse, check_mounted
        from lapse.web.open_routes import warn_of_open_routes

        check_mounted(app, runners, authentication, artifacts, default_app)
        if artifacts is not None:
            self.sessions.admission.holds_artifacts = artifacts.holds_any
            if self.store.rules.artifacts:
                self._artifacts.append(artifacts.running())
                self.sessions.artifacts = artifacts
        REMEMBERED.keep(self.settings.remembered_events)
        metrics = Metrics()
        self._counted.append(SweepMetrics(metrics))
        parts = Parts(
            whole=self,
            service=self.sessions,
            watcher=self.watcher,
            metrics=metrics,
            sweeper=self.sweeper if self.sweeps else None,
            operators=self.settings.operators,
            authentication=authentication or authentication_of(self.settings.authentication),
            runners=tuple(runners),
            apps=apps,
            default_app=default_app,
        )
        app.state.lapse = self
        runs = add_lapse(app, self.settings, parts)
        if parts.authentication is None and not self._is_local:
            warn_of_open_routes(app)
        return runs

    def app(
        self,
        agents_dir: str | Path | None = None,
        web: bool = False,  # noqa: FBT001, FBT002 - as ADK's own function has it
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        allow_origins: Sequence[str] = (),
        server: ServerOptions | None = None,
        chat_page: str | None = None,
        admin_port: int | None = None,
        authentication: Authentication | None = None,
    ) -> FastAPI:
        """Return the application that `lapse serve` serves; its lifespan runs Lapse.

        If it is called before `sessions` is used, ended sessions go to the outbox of artifacts.

        Args:
            agents_dir: a folder of ADK agents; None: the bundled demo agent.
            web: whether ADK's developer UI is served, too.
            host: the address on which the server listens.
            port: the port on which the server listens.
            allow_origins: origins of pages that may call; with authentication not every site's.
            server: what ADK's server is told, such as where artifacts are kept; by default as the
                settings say.
            chat_page: the app that a chat page at `/` talks to; by default the bundled agent.
            admin_port: the port of the operators' pages; by default as the settings say.
            authentication: how callers are authenticated; by default as the settings say.
        """
        from lapse.auth import authentication_of
        from lapse.auth.addresses import is_loopback
        from lapse.demo import AGENTS_DIR, APP_NAME, is_bundled
        from lapse.demo.page import add_chat_page
        from lapse.web.server import adk_app, finish_app

        check(
            agents_dir=(agents_dir, str | Path | None),
            web=(web, bool),
            host=(host, str),
            port=(port, int),
            allow_origins=(allow_origins, Collection[str]),
            server=(server, ServerOptions | None),
            chat_page=(chat_page, str | None),
            admin_port=(admin_port, int | None),
        )
        server = server or self.settings.server
        folder = AGENTS_DIR if agents_dir is None else Path(agents_dir)
        if is_bundled(folder):
            # The folder is part of the installed package, so artifacts are not written there.
            uri, chat_page = server.artifact_service_uri or "memory://", chat_page or APP_NAME
            server = replace(server, artifact_service_uri=uri)
        self._notes_artifacts, self._is_local = True, is_loopback(host)
        app, artifacts = adk_app(
            self.sessions,
            folder,
            web=web,
            host=host,
            port=port,
            allow_origins=allow_origins,
            authenticated=bool(authentication or self.settings.auth is not AuthMode.NONE),
            options=server,
            shared=self.settings.is_shared,
        )
        if admin_port is not None:
            self.settings = self.settings.model_copy(update={"admin_port": admin_port})
        authentication = authentication or authentication_of(
            self.settings.authentication, origins=tuple(allow_origins)
        )
        self.mount(app, artifacts=artifacts, authentication=authentication)
        finish_app(app, web=web)
        if chat_page is not None:
            add_chat_page(app, chat_page)
        return app
