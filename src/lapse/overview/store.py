"""The part of a store that operators look at: counts, levels, sessions by page, and the brakes.

Every change of a session's life is counted in the transaction that makes it, so that the counts
are the same on every replica and after any crash. Reading them costs what was counted lately,
never what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from lapse.core.lifecycle import ChangeKind, Lifecycle, Status

BUCKET: Final = timedelta(minutes=5)
"""What is counted within this time is one number; FINE later, the numbers of an hour are one."""

FINE: Final = timedelta(hours=2)

CONFIRMED: Final = timedelta(hours=1)
"""A brake lets go by itself after this time, and for as long what was let go of is not held again
for its share of the whole."""

COUNTS_KEPT: Final = timedelta(days=35)
"""How long the numbers of an hour are kept."""


@dataclass(frozen=True, slots=True)
class Counted:
    """How many changes of one kind one app saw in the BUCKET, or the hour, that began at `at`."""

    app_name: str
    kind: ChangeKind
    at: datetime
    sessions: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How many sessions of one app have one status in the lobby's records."""

    app_name: str
    status: Status
    sessions: int


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
class Overview:
    """What operators see first, at one moment of the store's clock.

    Attributes:
        now: that moment.
        tallies: how many sessions have which status, by app.
        counts: what changed since the moment that was asked for.
        next_expiry: the nearest deadline of a waiting session; overdue when it is in the past.
        next_purge: when the next expired session is past restoring.
        swept_at: when a sweeper of any process last said that it works; None: never.
        brake: why nothing is purged; None: nothing holds it.
    """

    now: datetime
    tallies: Sequence[Tally]
    counts: Sequence[Counted]
    next_expiry: datetime | None
    next_purge: datetime | None
    swept_at: datetime | None
    brake: Brake | None

    @property
    def overdue(self) -> timedelta:
        """Return for how long the longest overdue session has been waiting for a sweep."""
        if self.next_expiry is None:
            return timedelta(0)
        return max(self.now - self.next_expiry, timedelta(0))


@dataclass(frozen=True, slots=True)
class Query:
    """Which sessions of the lobby's records an operator wants to see.

    Attributes:
        status: as stored; a waiting session past its deadline that no sweep has met is among
            the waiting ones, and reads as expired.
        app_name: of this app only.
        user_id: of this user only.
        prefix: with an id that begins so.
        after: where the page before ended, from its `next`; None for the first page.
        size: sessions on a page, at most.
    """

    status: Status | None = None
    app_name: str | None = None
    user_id: str | None = None
    prefix: str | None = None
    after: str | None = None
    size: int = 50


@dataclass(frozen=True, slots=True)
class Page:
    """A page of sessions.

    Attributes:
        records: what was found, in an order of its own that does not change between pages.
        next: where to go on; None at the end. A page may be short, or empty, and yet have a
            next one: a page examines a bounded number of records.
    """

    records: Sequence[Lifecycle]
    next: str | None


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


class Operated(Protocol):
    """What operators look at, and the brakes."""

    async def overview(self, *, since: timedelta) -> Overview:
        """Return the overview from one snapshot, with the counts of the time `since` ago."""
        ...

    async def find(self, query: Query) -> Page:
        """Return a page of sessions, in the order in which they are reached.

        Waiting ones come by deadline, expired ones by when they are purged; with `prefix` by
        id; all others by key, which is the order of a user's sessions whatever their status.

        Raises:
            InvalidValueError: `after` is no place where a page of this query ended, or `size`
                is not 1 to 500.
        """
        ...

    async def dues(self, *, most: int) -> Dues:
        """Return how many sessions are due, counted up to `most` each. Changes nothing."""
        ...

    async def fold_counts(self) -> None:
        """Bring the levels up to date, so that reading them stays cheap.

        Counts older than FINE become hours, and hours older than COUNTS_KEPT are forgotten.
        Nothing is counted twice or lost, whoever folds at the same time.
        """
        ...

    async def recount(self) -> None:
        """Set the levels to what the records are, and leave the counts alone. Reads every record.

        For records that came by another way than a change: a copy, or a Lapse of before.
        """
        ...

    async def mark_swept(self) -> datetime:
        """Note that a sweeper works, and return the store's time."""
        ...

    async def set_brake(self, brake: Brake) -> bool:
        """Hold back what cannot be undone: every purge, and with a horizon of zero every expiry.

        False, and nothing, where a brake is set already, or where it is for the share and
        another one was released less than CONFIRMED ago. A jump of the clock is the graver
        reason: its brake takes the place of one for the share, and of one whose time the
        jump has ended.
        """
        ...

    async def brake(self) -> Brake | None:
        """Return the brake that is set, whether it would let go by itself or not."""
        ...

    async def release_brake(self, *, since: datetime) -> bool:
        """Let go of the brake that was set at `since`; False where it is set no more."""
        ...
