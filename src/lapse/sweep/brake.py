"""The brakes: a sweep stops before what cannot be undone when something must be wrong.

Too much at once is due, or the store's clock has jumped. The brake is a row in the store, on which
the purge's own statement depends: it holds for every replica, whether it has noticed or not.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lapse.store.database import Database
from lapse.sweep.rules import CONFIRMED, Brake, BrakeOptions, BrakeReason, Dues
from lapse.sweep.store import SweepStore

_CLEAR: Final = timedelta(seconds=5)
"""How long a backlog that was found to be no reason for a brake is not counted again."""

_log = logging.getLogger(__name__)


def process_clock() -> timedelta:
    """Return this process's own clock: the machine's sleep counts, where the machine can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    nanoseconds = time.monotonic_ns() if clock is None else time.clock_gettime_ns(clock)
    return timedelta(microseconds=nanoseconds // 1000)


@dataclass(frozen=True, slots=True)
class BrakeNews:
    """How the brake stands, as one process sees it.

    Attributes:
        brake: the one that is set.
        is_new: this process has not seen it before.
        is_ours: this process has just set it; of all processes, one.
        let_go: the one that this process saw before, and that is set no more.
    """

    brake: Brake | None = None
    is_new: bool = False
    is_ours: bool = False
    let_go: Brake | None = None


class Brakes:
    """Looks, before each sweep, whether it may do what cannot be undone.

    Between looks it remembers how the store's clock and this process's own went together, and
    which brake it has seen.
    """

    def __init__(self, options: BrakeOptions = BrakeOptions()) -> None:
        self._options = options
        self._brake: Brake | None = None
        self._zero: datetime | None = None
        """What the store's clock said, at most, when this process's own was at zero."""
        self._zero_before: datetime | None = None
        """The same before the jump for which a brake was set."""
        self._clear_until = timedelta(0)

    async def look(self, database: Database) -> BrakeNews:
        """Set the brake where there is a reason, let go of it where its time is over.

        It costs what is due, up to the bound that would be too much.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        store, before = SweepStore(database), process_clock()
        dues = await store.dues(most=self._options.sessions + 1)
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
        # Not before the brake is set: a jump that a fault came between is seen again.
        self._zero = zero
        seen, self._brake = self._brake, brake
        return BrakeNews(
            brake,
            is_new=brake is not None and brake != seen,
            is_ours=is_ours,
            let_go=seen if brake != seen else None,
        )

    async def _set(self, store: SweepStore, wanted: Brake) -> tuple[bool, Brake | None]:
        """Set a brake; return whether it was this one that did, and the one that is set now."""
        is_ours = await store.set_brake(wanted)
        brake = await store.brake()
        if brake is None:
            self._clear_until = process_clock() + _CLEAR
        return is_ours, brake

    def _is_over(self, brake: Brake, now: datetime, zero: datetime) -> bool:
        """Return whether a brake lets go: an hour has passed, or the clock has come back."""
        if now >= brake.until:
            return True
        if brake.reason is not BrakeReason.CLOCK or self._zero_before is None:
            return False
        return zero - self._zero_before <= self._options.jump

    async def _too_much(self, store: SweepStore, dues: Dues) -> Brake | None:
        """Return the brake for a backlog that is too large a share of everything."""
        if _lost(store, dues) <= self._options.sessions or process_clock() < self._clear_until:
            return None
        most = max(self._options.sessions, int(self._options.share * dues.stored))
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
    """Let go of the brake, because somebody has looked and says so; None where none is set.

    What it held is purged by the next sweep, and for CONFIRMED no share is too large.

    Args:
        database: whose brake it is.
        by: who says so, for the log.
    """
    store = SweepStore(database)
    brake = await store.brake()
    if brake is None or not await store.release_brake(since=brake.since):
        return None
    _log.warning("brake confirmed", extra={"reason": str(brake.reason), "by": by})
    return brake
