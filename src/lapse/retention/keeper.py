"""Archives and purges by the retention policy that is in force, as long as a server sweeps."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from lapse.core.background import Background
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change, ChangeKind, Expiries
from lapse.retention.archive import ArchiveStore
from lapse.retention.policy import PolicyError, read_policy
from lapse.retention.purging import Beside, HookedPurges
from lapse.retention.rules import Policy
from lapse.retention.scan import FIRST, LATER, ScanStore
from lapse.retention.store import RetentionStore
from lapse.retention.sweep import Purging, RetentionSweepStore
from lapse.store.database import Database

EVERY: Final = timedelta(seconds=2)
"""The pause between two looks: how late a session is archived, and a confirmation seen."""

BATCH: Final = 200
"""How many sessions are looked at, archived or purged at once."""

BUSY_PAUSE: Final = timedelta(milliseconds=20)
"""The shortest pause between two full batches. It is as long as the batch took, so that a store on
which others are at work, where a batch takes longer, is left to them for longer."""

_MOST_TOLD: Final = 10_000
"""So many sessions that were used since the last step are remembered; the scan finds the others."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PurgeLimits:
    """What is too much for one purge; see `BrakeOptions`."""

    share: float = 0.5
    sessions: int = 1000
    jump: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """The outcome of one step; `is_full` tells that more may be due."""

    archived: int = 0
    purged: int = 0
    is_full: bool = False
    is_scanning: bool = False
    """The first scan of all sessions since the confirmation is not complete."""

    is_held: bool = False
    """A brake is set, or too much would be purged at once, and nothing was taken for good."""


class RetentionKeeper:
    """Follows the policy file while its content is confirmed; without that it takes nothing.

    File and confirmation are read at each step. It logs once when a policy takes force and once
    when one loses it. While a brake is set it archives and purges nothing.

    Args:
        database: the store.
        feed: receives the changes.
        path: the policy file.
        limits: a purge of more than this waits for an operator.
        beside: what is done after an archive, and before a purge.
    """

    def __init__(
        self,
        database: Database,
        feed: Feed,
        path: Path,
        limits: PurgeLimits = PurgeLimits(),
        beside: Beside = Beside(),
    ) -> None:
        self._store = RetentionStore(database)
        self._archive = ArchiveStore(database)
        self._sweep = RetentionSweepStore(database)
        self._scanning = ScanStore(database)
        self._feed = feed
        feed.subscribe(self._hear, of_many=_no_expiry_is_a_use)
        self._told: dict[SessionKey, None] = {}
        self._scan_of, self._scan_at, self._is_scanning = "", 0.0, False
        self._path = path
        self._limits = limits
        self._work = Background("retention", self.step, within=self._owning)
        self.hooked = HookedPurges(database, feed, beside, on_room=self._work.wake)
        self._said: str | None = None
        self._zero: datetime | None = None
        self.policy: Policy | None = None
        """The policy in force; None: nothing may be taken."""

    def running(self) -> Background:
        """Return the background work; it follows the policy from its start to its stop."""
        return self._work

    def _owning(self) -> AbstractAsyncContextManager[None]:
        return self.hooked.owned()

    async def step(self) -> timedelta:
        """Take what is due, a batch of each kind, and return the pause before the next step.

        Raises:
            StoreUnavailableError: the store does not answer; no policy is in force meanwhile.
        """
        self.policy = await self._in_force()
        if self.policy is None:
            self._zero = None
            return EVERY
        began = time.monotonic()
        report = await self.sweep(self.policy)
        if report.is_full:
            return max(BUSY_PAUSE, timedelta(seconds=time.monotonic() - began))
        return FIRST.pause if report.is_scanning else EVERY

    async def sweep(self, policy: Policy) -> RetentionReport:
        """Archive and purge a batch of what is due by a policy, and publish the changes."""
        ahead = await self._sweep.purging(most=self._limits.sessions + 1)
        if ahead.is_braked or self._has_jumped(ahead.now):
            return RetentionReport(is_held=True)
        is_scanning = await self._scan(policy)
        archived = await self._look_at_told(policy)
        keys = await self._sweep.due_for_look(BATCH)
        archived += await self._archived(keys, policy)
        is_held = await self._is_too_much(ahead)
        purged = await self._purged() if ahead.due and not is_held else 0
        is_full = len(keys) == BATCH or purged == BATCH or bool(self._told)
        return RetentionReport(archived, purged, is_full, is_scanning, is_held)

    async def _scan(self, policy: Policy) -> bool:
        """Let the scan read a page if it is time; return whether it has not been through all."""
        if not any(limits.archives for limits in (policy.default, *policy.apps.values())):
            return False
        if policy.digest == self._scan_of and time.monotonic() < self._scan_at:
            return self._is_scanning
        page = await self._scanning.scan(policy)
        self._is_scanning = page is not None and not page.is_whole
        pause = FIRST.pause if self._is_scanning else EVERY if page is None else LATER.pause
        self._scan_of, self._scan_at = policy.digest, time.monotonic() + pause.total_seconds()
        return self._is_scanning

    async def _look_at_told(self, policy: Policy) -> int:
        """Look at sessions that were used since the last step; return how many were archived.

        Those of a user that are kept by their number are all looked at.
        """
        told, self._told = list(self._told)[:BATCH], dict.fromkeys(list(self._told)[BATCH:])
        archived = await self._archived(told, policy)
        counted = {
            key._replace(session_id="")
            for key in told
            if policy.of(key.app_name).per_user is not None
        }
        for user in sorted(counted):
            await self._scanning.check_user(user)
        return archived

    def _hear(self, change: Change) -> None:
        if change.kind is ChangeKind.USED and len(self._told) < _MOST_TOLD:
            self._told[change.record.key] = None

    async def _archived(self, keys: Sequence[SessionKey], policy: Policy) -> int:
        if not keys:
            return 0
        done = await self._archive.archive_sessions(keys, policy)
        self._feed.publish(done.changes, swept=True)
        self.hooked.archived(done.changes)
        return done.value.archived

    async def _purged(self) -> int:
        """Purge a batch; what needs more than the purge is begun, and not waited for."""
        steps, forgets = self.hooked.beside.steps(), self.hooked.beside.forgets()
        if steps or forgets:
            await self.hooked.begin(steps, forgets=forgets)
            return 0
        done = await self._archive.purge_archived(BATCH)
        self._feed.publish(done.changes, swept=True)
        return done.value

    async def _is_too_much(self, ahead: Purging) -> bool:
        """Return whether a brake was set, because too much would be purged at once."""
        most = max(self._limits.sessions, int(self._limits.share * ahead.archived))
        if ahead.due <= self._limits.sessions:
            return False
        due = (await self._sweep.purging(most=most + 1)).due
        return due > most and await self._store.brake_purge(ahead.now, due)

    def _has_jumped(self, now: datetime) -> bool:
        """Return whether the store's clock ran ahead of this process's own since the last step.

        The sweeper then sets a brake; until it has, nothing is taken.
        """
        zero, before = now - timedelta(seconds=time.monotonic()), self._zero
        self._zero = zero
        return before is not None and zero - before > self._limits.jump

    async def _in_force(self) -> Policy | None:
        self.policy = None
        try:
            policy = await asyncio.to_thread(read_policy, self._path)
        except PolicyError as error:
            self._say(f"no retention: {error}")
            return None
        confirmed = await self._store.retention_confirmed()
        if confirmed is None or confirmed.digest != policy.digest:
            self._say(
                "no retention: the policy is not confirmed; review it with "
                "`lapse retention check`, then `lapse retention confirm`"
            )
            return None
        self._say(f"the retention policy is in force, as {confirmed.by} confirmed")
        return policy

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            _log.warning("%s", sentence)


def _no_expiry_is_a_use(expiries: Expiries) -> None:
    """Expiries tell of no used sessions."""
