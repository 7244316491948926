"""The brake: it keeps a sweep from what cannot be undone if something must be wrong.

It is set if too much is due at once, or if the store's clock has jumped ahead. The brake is a row
in the store, and the purge's own statement checks it: it holds every replica at once.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lapse.store.database import Database
from lapse.sweep.rules import CONFIRMED, FEW, Brake, BrakeOptions, BrakeReason, Dues
from lapse.sweep.store import SweepStore

_CLEAR: Final = timedelta(seconds=5)
"""A backlog that was no reason for a brake is not counted again for this long."""

_log = logging.getLogger(__name__)


def process_clock() -> timedelta:
    """Return the process's own clock; it counts the machine's sleep, if the machine can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    nanoseconds = time.monotonic_ns() if clock is None else time.clock_gettime_ns(clock)
    return timedelta(microseconds=nanoseconds // 1000)


@dataclass(frozen=True, slots=True)
class BrakeNews:
    """How the brake stands, as one process sees it.

    Attributes:
        brake: the brake that is set; None if there is none.
        is_new: True if this process has not seen the brake before.
        is_ours: True if this process has just set the brake, which only one process does.
        let_go: the brake that this process saw before, if that is no longer set.
        due: how many waiting sessions are past their deadline, counted up to a bound above FEW.
    """

    brake: Brake | None = None
    is_new: bool = False
    is_ours: bool = False
    let_go: Brake | None = None
    due: int = 0


class Brakes:
    """Checks before each sweep whether the brake must be set or released.

    Between two checks it remembers the difference between the store's clock and the process's own,
    and the brake that it has seen.
    """

    def __init__(self, options: BrakeOptions = BrakeOptions()) -> None:
        self._options = options
        self._brake: Brake | None = None
        self._zero: datetime | None = None
        """The store's time when the process's clock was at zero: an upper bound."""
        self._zero_before: datetime | None = None
        """`_zero` before the jump for which this process set a brake."""
        self._clear_until = timedelta(0)

    async def look(self, database: Database) -> BrakeNews:
        """Set the brake if there is a reason, or release it if its time is over.

        It counts due sessions up to the bound above which they are too many, or no longer few.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        store, before = SweepStore(database), process_clock()
        dues = await store.dues(most=max(self._options.sessions, FEW) + 1)
        zero, last = dues.now - before, self._zero
        jump = timedelta(0) if last is None else dues.now - process_clock() - last
        brake, is_ours = dues.brake, False
        if jump > self._options.jump:
            wanted = Brake(BrakeReason.CLOCK, dues.now, dues.now + CONFIRMED, jump=jump)
            is_ours, brake = await self._set(store, wanted)
            self._zero_before = last
        elif brake is not None and self._is_over(brake, dues.now, zero):
            await store.release_brake(since=brake.since)
            brake = self._zero_before = None
        elif brake is None and (too_much := await self._too_much(store, dues)) is not None:
            is_ours, brake = await self._set(store, too_much)
        # Only after the brake is set: if a fault comes in between, the jump is seen again.
        self._zero = zero
        seen, self._brake = self._brake, brake
        return BrakeNews(
            brake,
            is_new=brake is not None and brake != seen,
            is_ours=is_ours,
            let_go=seen if brake != seen else None,
            due=dues.expire,
        )

    async def _set(self, store: SweepStore, wanted: Brake) -> tuple[bool, Brake | None]:
        """Set a brake; return whether this call set it, and the brake that is set now."""
        is_ours = await store.set_brake(wanted)
        brake = await store.brake()
        if brake is None:
            self._clear_until = process_clock() + _CLEAR
        return is_ours, brake

    def _is_over(self, brake: Brake, now: datetime, zero: datetime) -> bool:
        """Return whether to release a brake: an hour has passed, or the clock has come back."""
        if now >= brake.until:
            return True
        if brake.reason is not BrakeReason.CLOCK or self._zero_before is None:
            return False
        return zero - self._zero_before <= self._options.jump

    async def _too_much(self, store: SweepStore, dues: Dues) -> Brake | None:
        """Return the brake for a backlog that is too large a share; None if it is not too large."""
        if _lost(store, dues) <= self._options.sessions or process_clock() < self._clear_until:
            return None
        most = self._options.largest_purge(dues.stored)
        dues = await store.dues(most=most + 1)
        if _lost(store, dues) <= most:
            self._clear_until = process_clock() + _CLEAR
            return None
        lost = _lost(store, await store.dues(most=dues.stored))
        return Brake(BrakeReason.SHARE, dues.now, dues.now + CONFIRMED, sessions=lost)


def _lost(store: SweepStore, dues: Dues) -> int:
    """Return how many sessions a sweep would end for good."""
    return dues.purge if store.rules.horizon else dues.purge + dues.expire


async def confirm(database: Database, by: str) -> Brake | None:
    """Release the brake, because somebody confirms the purge, and return it; None if none is set.

    The next sweep purges what the brake held, and for CONFIRMED no share is too large.

    Args:
        database: the store.
        by: who confirms, for the log.
    """
    store = SweepStore(database)
    brake = await store.brake()
    if brake is None or not await store.release_brake(since=brake.since):
        return None
    _log.warning("brake confirmed", extra={"reason": str(brake.reason), "by": by})
    return brake
