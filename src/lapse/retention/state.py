"""Whether a retention policy is in force: what its file says, and what was confirmed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lapse.core.clock import utc_now
from lapse.retention.levels import RetentionLevels, RetentionLevelStore
from lapse.retention.policy import PolicyError, read_policy
from lapse.retention.rules import Policy
from lapse.retention.store import Confirmation, RetentionStore
from lapse.store.database import Database


@dataclass(frozen=True, slots=True)
class RetentionState:
    """How retention stands for a process that has a policy file, or none.

    Attributes:
        file: the policy file; None: there is none, and retention is off.
        policy: what it says; None without a file, and while it has faults.
        problems: the faults of the file, each with its line.
        unconfirmed_for: how long the file has been there without effect, by the time at which it
            was last written; zero without a file, and while it is in force.
        confirmation: what was confirmed last, be it this policy or another.
        levels: what retention concerns in the store.
        is_enforced: False while clean-up is switched off.
    """

    file: Path | None
    policy: Policy | None
    problems: tuple[str, ...]
    unconfirmed_for: timedelta
    confirmation: Confirmation | None
    levels: RetentionLevels
    is_enforced: bool = True

    @property
    def is_in_force(self) -> bool:
        """Return whether this policy, and no other, is confirmed."""
        confirmed = None if self.confirmation is None else self.confirmation.digest
        return self.policy is not None and self.policy.digest == confirmed

    @property
    def faults(self) -> int:
        """Return the number of faults of the file."""
        return len(self.problems)

    @property
    def is_sweeping(self) -> bool:
        """Return whether sweeps by this policy may take something."""
        return self.is_in_force and self.is_enforced and not self.levels.is_braked

    @property
    def due(self) -> int:
        """Return how many sessions wait for a sweep that may take them."""
        return self.levels.due if self.is_sweeping else 0

    @property
    def overdue(self) -> timedelta:
        """Return how long the first of them has waited."""
        return self.levels.overdue if self.is_sweeping else timedelta(0)


async def read_state(database: Database, file: Path | None) -> RetentionState:
    """Read policy file, confirmation and levels.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    policy, problems, written_at = await asyncio.to_thread(_read, file)
    confirmation = await RetentionStore(database).retention_confirmed()
    levels = await RetentionLevelStore(database).retention_levels()
    state = RetentionState(
        file=file,
        policy=policy,
        problems=problems,
        unconfirmed_for=timedelta(0),
        confirmation=confirmation,
        levels=levels,
        is_enforced=database.rules.enforced,
    )
    if written_at is None or state.is_in_force:
        return state
    return replace(state, unconfirmed_for=max(timedelta(0), utc_now() - written_at))


def _read(file: Path | None) -> tuple[Policy | None, tuple[str, ...], datetime | None]:
    if file is None:
        return None, (), None
    try:
        written_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError:
        written_at = None
    try:
        return read_policy(file), (), written_at
    except PolicyError as error:
        return None, error.problems, written_at
