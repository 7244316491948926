"""Hooks of retention: what an operator's own code does when sessions are archived and purged."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from lapse.core.arguments import check
from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle
from lapse.core.minutes import spelt

_MOST_STRAYS: Final = 100
"""While more calls than this go on after their time, no further one begins."""

_LEAVE_WITHIN: Final = timedelta(milliseconds=200)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetentionHooks:
    """The functions that are awaited when a retention policy archives or purges a session.

    Attributes:
        on_archive: gets the record of a session that was archived. It is told once, and not
            again if it fails or the process ends.
        before_purge: gets an archived session (ADK's `Session`) with its events and its own state.
            The session is purged after it has returned. If it fails, or takes longer than
            `timeout`, the purge is put off and it is called again later. It is called at least
            once, possibly by several processes.
        timeout: how long one call may take.
    """

    on_archive: Callable[[Lifecycle], Awaitable[object]] | None = None
    before_purge: Callable[[Any], Awaitable[object]] | None = None
    timeout: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        check(timeout=(self.timeout, timedelta))
        if self.timeout <= timedelta(0):
            raise InvalidValueError("timeout", f"must be above 0, not {spelt(self.timeout)}")
        for name in ("on_archive", "before_purge"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                reason = f"must be an asynchronous function or None, not a {type(hook).__name__}"
                raise InvalidValueError(name, reason)


def hooks_named(text: str) -> RetentionHooks:
    """Return the hooks that a setting names as `package.module:NAME`.

    Raises:
        InvalidValueError: there are no such hooks.
    """
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        reason = f"must be package.module:NAME, which can be imported ({type(error).__name__})"
        raise InvalidValueError("LAPSE_RETENTION_HOOKS", reason) from error
    if not isinstance(found, RetentionHooks):
        raise InvalidValueError("LAPSE_RETENTION_HOOKS", "must name a lapse.RetentionHooks")
    return found


class Outcome(StrEnum):
    """How a call of a hook ended."""

    DONE = "done"
    FAILED = "failed"
    LATE = "late"
    """It took too long, and was cancelled."""

    DROPPED = "dropped"
    """It was not called, because too many others did not end."""


class HookCalls:
    """Calls hooks, each within a time, and counts how the calls ended.

    Attributes:
        outcomes: how many calls of each hook ended how, in this process.
        on_counts: what is called after each count; none may fail.
    """

    def __init__(self) -> None:
        self.outcomes = Counter[tuple[str, Outcome]]()
        self.on_counts: list[Callable[[], None]] = []
        self._strays = set[asyncio.Task[None]]()

    async def call(
        self,
        name: str,
        key: SessionKey,
        hook: Callable[[], Awaitable[object]],
        within: timedelta,
    ) -> bool:
        """Call a hook for a session; return whether it ended well, in time.

        A hook that goes on although it was cancelled is abandoned.
        """
        if len(self._strays) >= _MOST_STRAYS:
            self.count(name, Outcome.DROPPED, key, "too many earlier calls do not end")
            return False
        task = asyncio.create_task(_awaited(hook))
        try:
            await asyncio.wait({task}, timeout=within.total_seconds())
        finally:
            if not task.done():
                task.cancel()
                self._strays.add(task)
                task.add_done_callback(self._stray_ended)
        if not task.done():
            self.count(name, Outcome.LATE, key, f"it took longer than {spelt(within)}")
            return False
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self.count(name, Outcome.FAILED, key, type(error).__name__)
            return False
        self.count(name, Outcome.DONE, key)
        return True

    def count(self, name: str, outcome: Outcome, key: SessionKey, why: str = "") -> None:
        """Count how a call ended, and log if it did not end well; an error's text may be secret."""
        self.outcomes[name, outcome] += 1
        for hear in self.on_counts:
            hear()
        if outcome is not Outcome.DONE:
            _log.warning(
                "the hook %s failed: %s",
                name,
                why,
                extra={"app": key.app_name, "session": key.short},
            )

    def begin(self) -> None:
        """Forget the calls of an earlier event loop."""
        self._strays.clear()

    async def leave(self) -> None:
        """Wait a little for the calls that were cancelled, and abandon those that go on."""
        if self._strays:
            await asyncio.wait(self._strays, timeout=_LEAVE_WITHIN.total_seconds())

    def _stray_ended(self, task: asyncio.Task[None]) -> None:
        self._strays.discard(task)
        if not task.cancelled():
            task.exception()  # so that asyncio does not log it


async def _awaited(hook: Callable[[], Awaitable[object]]) -> None:
    await hook()
