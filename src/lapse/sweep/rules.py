"""When a sweep stops before what cannot be undone, and what holds it then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

CONFIRMED: Final = timedelta(hours=1)
"""A brake lets go by itself after this time, and for as long what was let go of is not held again
for its share of the whole."""


@dataclass(frozen=True, slots=True)
class BrakeOptions:
    """When a sweep stops before what cannot be undone.

    Attributes:
        share: where it would end more than this share of all sessions in the lobby's records
            for good; 1 never does.
        sessions: and more than this many.
        jump: or where the store's clock jumped ahead of the process's own by more than this.
    """

    share: float = 0.5
    sessions: int = 1000
    jump: timedelta = timedelta(minutes=5)


class BrakeReason(StrEnum):
    """Why a sweep stopped before what cannot be undone."""

    SHARE = "share"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Brake:
    """The sweepers of all replicas purge nothing.

    Attributes:
        reason: why.
        since: since when.
        until: when it lets go by itself, for by then the next hour has confirmed it.
        sessions: how many it holds back; of a clock that jumped, 0.
        jump: by how much the store's clock jumped; else zero.
    """

    reason: BrakeReason
    since: datetime
    until: datetime
    sessions: int = 0
    jump: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Dues:
    """What a sweep would do now, each counted up to a bound, and of how many in all.

    Attributes:
        now: when that was, by the store's clock.
        expire: how many waiting sessions are past their deadline.
        purge: how many expired sessions are past restoring.
        stored: how many sessions the lobby's records hold.
        brake: why none of them would be purged.
    """

    now: datetime
    expire: int
    purge: int
    stored: int
    brake: Brake | None
