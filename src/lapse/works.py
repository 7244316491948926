"""The work beside requests: what a Lapse makes from the settings, and runs while it is entered."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from lapse.adk.maintenance import maintenance_of
from lapse.adoption.adopter import Adopter
from lapse.adoption.settings import Adopt
from lapse.core.background import Work
from lapse.core.errors import InvalidValueError
from lapse.notices.watcher import Watcher
from lapse.overview.processes import Heartbeat
from lapse.retention.hooks import HookCalls, RetentionHooks, hooks_named
from lapse.retention.settings import PurgedMemory
from lapse.runs.store import RunStore
from lapse.store.options import PostgresFeature
from lapse.sweep.logs import log_sweep
from lapse.sweep.maintenance import Maintenance
from lapse.sweep.sweeper import LONGEST_SLEEP, SHORT_SLEEP, Sweeper, SweepReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapse.adk.memory import BaseMemoryService
    from lapse.adk.remembered import Memory
    from lapse.adk.services import BaseSessionService
    from lapse.core.feed import Feed
    from lapse.retention.forgetting import Forgetting
    from lapse.retention.keeper import RetentionKeeper
    from lapse.retention.purging import Step
    from lapse.settings import Settings
    from lapse.store.database import Database
    from lapse.sweep.metrics import SweepMetrics
    from lapse.ttl.policy import TtlPolicy
    from lapse.webhooks.sender import WebhookSender


class Works:
    """The works of a Lapse, each made when it is first asked for."""

    settings: Settings
    _counted: list[SweepMetrics]
    _conversations: BaseSessionService | None
    _hooks: RetentionHooks | None
    _memory: BaseMemoryService | None
    _steps: tuple[BaseMemoryService | None, Sequence[Step]] | None = None

    if TYPE_CHECKING:

        @property
        def store(self) -> Database: ...  # noqa: D102 - Lapse has them
        @property
        def feed(self) -> Feed: ...  # noqa: D102
        @property
        def policy(self) -> TtlPolicy: ...  # noqa: D102

    @cached_property
    def sweeper(self) -> Sweeper:
        """The sweeper of the store; it is started if this process sweeps."""
        hears = PostgresFeature.LISTEN not in self.settings.postgres_without
        return Sweeper(
            self.store,
            self.feed,
            on_report=self._swept,
            on_fault=self._failed,
            brakes=self.settings.brakes,
            longest_sleep=LONGEST_SLEEP if hears else SHORT_SLEEP,
        )

    @cached_property
    def maintenance(self) -> Maintenance:
        """The maintenance that keeps the store small; every process runs it."""
        own = RunStore(self.store).maintain, Heartbeat(self.store, sweeps=self.sweeps).beat
        return Maintenance((*maintenance_of(self.store, converses=self._converses), *own))

    @cached_property
    def watcher(self) -> Watcher:
        """The watcher that tells browsers and other processes of changes."""
        return Watcher(self.store, self.feed, self.settings.watch)

    @cached_property
    def adopter(self) -> Adopter | None:
        """The adopter of empty sessions that stock ADK leaves in the store; None if it is off."""
        if not self.sweeps or self._converses or self.settings.adopt is Adopt.OFF:
            return None
        scope, used_by = self.settings.adopt, self.settings.used_by
        return Adopter(self.store, self.feed, scope=scope, ttl=self.policy.default, used_by=used_by)

    @cached_property
    def retention(self) -> RetentionKeeper | None:
        """The keeper of the retention policy; None without one, or if this process never sweeps."""
        if not self.sweeps or self._converses or self.settings.retention_file is None:
            return None
        from lapse.retention.keeper import PurgeLimits, RetentionKeeper
        from lapse.retention.purging import Beside

        if self._hooks is None:
            named = self.settings.retention_hooks
            self._hooks = RetentionHooks() if named is None else hooks_named(named)
        brakes = self.settings.brakes
        limits = PurgeLimits(brakes.share, brakes.sessions, brakes.jump)
        beside = Beside(self._hooks, self._steps_before_purges, self._forgets, self._owed)
        beside.steps()  # what is imported for it is imported now
        path = self.settings.retention_file
        return RetentionKeeper(self.store, self.feed, path, limits, beside)

    def _steps_before_purges(self) -> Sequence[Step]:
        """Return what must be done before a session is purged; ADK is imported if it is asked."""
        hooks, choice, memory = self._hooks, self.settings.retention_memory, self.memory
        assert hooks is not None, "the keeper asks, and it has hooks"
        saves = choice is PurgedMemory.SAVE
        if hooks.before_purge is None and memory is None and not saves:
            return ()
        if self._steps is None or self._steps[0] is not memory:
            from lapse.adk.purges import steps_before

            self._steps = memory, steps_before(hooks, choice, memory)
        return self._steps[1]

    @cached_property
    def forgetting(self) -> Forgetting | None:
        """The work that deletes memories of purged sessions; None if no memory here can."""
        memory = self._memory_that_forgets
        if memory is None:
            return None
        from lapse.retention.forgetting import Forgetting

        calls = HookCalls() if self.retention is None else self.retention.hooked.calls
        return Forgetting(self.store, memory.forget, calls)

    @cached_property
    def _memory_that_forgets(self) -> Memory | None:
        if not self.sweeps or self._converses or self.memory is None:
            return None
        from lapse.adk.purges import memory_that_forgets

        return memory_that_forgets(self.settings.retention_memory, self.memory)

    def _forgets(self) -> bool:
        memory, hooks = self._memory_that_forgets, self._hooks
        assert hooks is not None, "the keeper asks, and it has hooks"
        if memory is None:
            return False
        from lapse.adk.purges import forgets_purged

        return forgets_purged(hooks, self.settings.retention_memory, memory)

    def _owed(self) -> None:
        if self.forgetting is not None:
            self.forgetting.wake()

    @property
    def memory(self) -> BaseMemoryService | None:
        """The memory service of the application, or else of the settings' URI; None: unknown."""
        uri = self.settings.server.memory_service_uri
        if self._memory is None and uri is not None:
            from lapse.adk.memory import memory_service

            try:
                self._memory = memory_service(uri)
            except ValueError as error:
                raise InvalidValueError("memory_service_uri", str(error)) from error
        return self._memory

    @cached_property
    def webhooks(self) -> WebhookSender | None:
        """The sender of events to the operators' webhook; None if none is set."""
        if (options := self.settings.webhook) is None:
            return None
        from lapse.webhooks.sender import WebhookSender

        return WebhookSender(self.store, options)

    @property
    def _converses(self) -> bool:
        return bool(self._conversations or self.settings.conversations_uri)

    @property
    def sweeps(self) -> bool:
        """Return whether this process sweeps the store."""
        return self.settings.sweeper and self.settings.cleanup_enabled

    def _keeping(self) -> list[Work]:
        works: list[Work] = [self.policy, self.maintenance]
        if self.sweeps:
            works.append(self.sweeper)
        chosen = self.adopter, self.webhooks, self.retention, self.forgetting
        return [*works, *(one.running() for one in chosen if one is not None)]

    def _swept(self, report: SweepReport) -> None:
        for metrics in self._counted:
            metrics.count_sweep(report)
        log_sweep(report)

    def _failed(self, fault: Exception) -> None:
        for metrics in self._counted:
            metrics.count_fault(fault)
