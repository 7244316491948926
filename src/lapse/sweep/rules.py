"""When a brake is set, what it holds, and how many due sessions are a backlog."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from lapse.core.arguments import check_fields

CONFIRMED: Final = timedelta(hours=1)
"""A brake is released by itself after this time. For as long after a release, no backlog sets a
brake for its share."""

FEW: Final = 20
"""More due sessions than this are a backlog, which expires without a change for each session."""


@dataclass(frozen=True, slots=True)
class BrakeOptions:
    """When a brake is set.

    Attributes:
        share: a brake is set if a sweep would delete more than this share of all sessions in the
            lobby's records for good; 1 switches this off.
        sessions: a backlog of at most this many sessions sets no brake, whatever its share.
        jump: a brake is set if the store's clock jumps ahead of the process's own clock by more
            than this.
    """

    share: float = 0.5
    sessions: int = 1000
    jump: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        check_fields(self)

    def largest_purge(self, stored: int) -> int:
        """Return how many of so many stored sessions may be purged without setting a brake."""
        return max(self.sessions, int(self.share * stored))


class BrakeReason(StrEnum):
    """Why a brake was set."""

    SHARE = "share"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Brake:
    """A brake that is set: no sweeper of any replica purges anything.

    Attributes:
        reason: why it was set.
        since: when it was set.
        until: when it is released by itself.
        sessions: how many sessions it holds back; 0 if the reason is the clock.
        jump: by how much the store's clock jumped; zero if the reason is the share.
    """

    reason: BrakeReason
    since: datetime
    until: datetime
    sessions: int = 0
    jump: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Dues:
    """What a sweep would do now; `expire` and `purge` are counted up to a bound.

    Attributes:
        now: the time of the count, by the store's clock.
        expire: how many waiting sessions are past their deadline.
        purge: how many expired sessions are no longer restorable.
        stored: how many sessions the lobby's records hold in all.
        brake: the brake that keeps them from being purged; None if none is set.
    """

    now: datetime
    expire: int
    purge: int
    stored: int
    brake: Brake | None
