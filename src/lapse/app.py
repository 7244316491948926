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
from typing import TYPE_CHECKING, Any, Self

from lapse.adk.server_options import ServerOptions
from lapse.auth.options import AuthMode
from lapse.core.arguments import check
from lapse.core.background import Work
from lapse.core.errors import SettingsError
from lapse.core.feed import Feed
from lapse.core.lifecycle import Rules
from lapse.core.messages import UsedByRule
from lapse.retention.hooks import RetentionHooks
from lapse.settings import Settings, load_settings, unknown_settings
from lapse.store import store_from_url
from lapse.store.database import Database
from lapse.telemetry.logs import log_change, log_expiries
from lapse.ttl.policy import TtlPolicy
from lapse.works import Works

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lapse.adk.run_sse import Runner
    from lapse.adk.service import LapseSessionService
    from lapse.adk.services import BaseSessionService
    from lapse.artifacts.sweeper import ArtifactSweeper
    from lapse.auth import Authentication
    from lapse.runs.runs import Runs
    from lapse.sweep.metrics import SweepMetrics


class Lapse(Works):
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
        conversations: ADK's service in which used sessions live; it wins over the settings.
        retention_hooks: what is awaited when a retention policy archives or purges a session; it
            wins over the settings.

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
        conversations: BaseSessionService | None = None,
        retention_hooks: RetentionHooks | None = None,
    ) -> None:
        check(
            retention_hooks=(retention_hooks, RetentionHooks | None),
            store_url=(store_url, str | None),
            settings=(settings, Settings | None),
            notes_artifacts=(notes_artifacts, bool),
        )
        if conversations is not None:
            from lapse.adk.services import check_service

            check_service(conversations)
        settings = settings or load_settings(store_url=store_url or None)
        if store_url:
            settings = settings.model_copy(update={"store_url": store_url})
        if used_by is not None:
            settings = settings.model_copy(update={"used_by": UsedByRule.parse(used_by)})
        self._set_up(settings, conversations, notes_artifacts=notes_artifacts)
        self._hooks = retention_hooks
        store_from_url(settings.store_url)  # a wrong URL raises now, and not at the first use

    def _set_up(self, settings: Settings, others: Any = None, *, notes_artifacts: bool) -> None:
        if problems := [*unknown_settings(), *settings.problems(converses=others is not None)]:
            raise SettingsError(problems)
        self.settings = settings
        self._notes_artifacts = notes_artifacts
        self._counted: list[SweepMetrics] = []
        self._works, self._artifacts = list[Work](), list[Work]()
        self._running_on: asyncio.AbstractEventLoop | None = None
        self._conversations: BaseSessionService | None = others
        self._hooks, self._memory = None, None
        self._is_local, self._agents_dir = False, Path()

    @classmethod
    def _around(
        cls, service: LapseSessionService, settings: Settings, *, notes_artifacts: bool
    ) -> Self:
        """Return a Lapse around a service; what its maker did not choose, the settings do."""
        lapse = cls.__new__(cls)
        service.used_by = service.used_by or settings.used_by
        settings = settings.model_copy(update={"used_by": service.used_by})
        lapse._set_up(settings, service.conversations, notes_artifacts=notes_artifacts)  # noqa: SLF001
        service.store.default_to(lapse._rules, settings.connection)  # noqa: SLF001
        service.default_to(settings.targets, settings.ttl_policy, settings.quotas)
        lapse._hooks = service.retention_hooks  # noqa: SLF001
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
        return TtlPolicy(self.store, self.feed, self.settings.targets, self.settings.ttl_policy)

    @cached_property
    def sessions(self) -> LapseSessionService:
        """ADK's session service on the store; work beside it runs while the Lapse is entered."""
        return self._service()

    def _service(self, beside: Sequence[Work] = ()) -> LapseSessionService:
        from lapse.adk.services import service_of

        how = {"feed": self.feed, "policy": self.policy, "beside": beside}
        return service_of(self.store, self.settings, self._conversations, self._agents_dir, **how)

    async def __aenter__(self) -> Self:
        """Open the store and start everything.

        Raises:
            StoreUnavailableError: the store does not answer.
            StoreRefusedError: the store cannot be used.
        """
        if self._running_on is not None and not self._running_on.is_closed():
            raise RuntimeError(
                "this Lapse runs already: enter it once, or leave that to its application"
            )
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
            await self.__dict__.get("sessions", self.store).close()

    async def begin(self) -> None:
        """Start everything on the running event loop; the store opens at its first use."""
        finishing = self.sessions.finishing if self._converses else ()
        self._works = [*self._keeping(), self.watcher, *self._artifacts, *finishing]
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
        from lapse.auth import authentication_of
        from lapse.sweep.metrics import SweepMetrics
        from lapse.telemetry.metrics import Metrics
        from lapse.web.application import Parts, add_lapse, check_mounted, memory_of
        from lapse.web.open_routes import warn_of_open_routes

        check_mounted(app, runners, authentication, artifacts, default_app)
        self._memory = memory_of(app)
        if artifacts is not None:
            self.sessions.admission.holds_artifacts = artifacts.holds_any
            if self.store.rules.artifacts:
                self._artifacts.append(artifacts.running())
                self.sessions.artifacts = artifacts
        metrics = Metrics()
        self._counted.append(SweepMetrics(metrics))
        parts = Parts(
            whole=self,
            service=self.sessions,
            watcher=self.watcher,
            metrics=metrics,
            sweeper=self.sweeper if self.sweeps else None,
            webhooks=self.webhooks,
            retention=self.retention,
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

    def sweeper_app(self) -> FastAPI:
        """Return an application for a process that only sweeps; `lapse sweep --watch` serves it.

        It has `/livez`, `/readyz` and `/metrics`, and no other route. Its lifespan does not run
        Lapse, as that of `app` does: the caller enters this Lapse (`async with`) for as long as the
        application is served. `/metrics` asks for LAPSE_METRICS_TOKEN where one is set, and also
        where LAPSE_AUTH is, unless LAPSE_METRICS_OPEN is true.
        """
        from lapse.sweep.metrics import SweepMetrics
        from lapse.telemetry.metrics import Metrics
        from lapse.web.sweeping import sweeper_app

        metrics = Metrics()
        self._counted.append(SweepMetrics(metrics))
        return sweeper_app(
            self.store,
            self.feed,
            metrics,
            sweeper=self.sweeper,
            retention=self.retention,
            retention_file=self.settings.retention_file,
            webhooks=self.webhooks,
            metrics_tokens=self.settings.sweepers_metrics,
        )

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
        from lapse.demo import served_from
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
        self._notes_artifacts, self._is_local = True, is_loopback(host)
        self._agents_dir, server, chat_page = served_from(
            agents_dir, server or self.settings.server, chat_page
        )
        app, artifacts = adk_app(
            self.sessions,
            self._agents_dir,
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
