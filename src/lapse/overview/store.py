"""What operators look at: counts, levels, and sessions by page.

Every change of a session's life is counted in the transaction that makes it, so that the counts
are the same on every replica and after any crash. Reading them costs what was counted lately,
never what is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from lapse.core.lifecycle import ChangeKind, Lifecycle, Status
from lapse.overview import find
from lapse.store.operation import (
    Asking,
    Dialect,
    Part,
    Row,
    dialect,
    only,
    operation,
    rows,
    rows_until,
)
from lapse.store.records import lifecycle_of
from lapse.sweep.rules import Brake
from lapse.sweep.store import brake_of

BUCKET: Final = timedelta(minutes=5)
"""What is counted within this time is one number; FINE later, the numbers of an hour are one."""

FINE: Final = timedelta(hours=2)


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


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class OverviewStore(Part):
    """What operators look at."""

    @operation(writes=False)
    def overview(self, *, since: timedelta) -> Asking[Overview]:
        """Return the overview from one snapshot, with the counts of the time `since` ago."""
        match (yield from dialect()):
            case Dialect.SQLITE:  # a read transaction is one snapshot
                levels = yield from rows("levels")
                counts = yield from rows("counts", reach=since + BUCKET)
                return _overview(
                    (yield from only("moments")),
                    [(row["app_name"], row["status"], row["sessions"]) for row in levels],
                    [(row["app_name"], row["kind"], row["at"], row["sessions"]) for row in counts],
                    *(yield from rows("brake")),
                )
            case Dialect.POSTGRES:  # one statement is one snapshot: its lists come as arrays
                row = yield from only("overview", reach=since + BUCKET)
                moment_of = cache(datetime.fromtimestamp)
                return _overview(
                    row,
                    _zipped(row["level_apps"], row["level_statuses"], row["levels"]),
                    (
                        (app_name, kind, moment_of(seconds, UTC), sessions)
                        for app_name, kind, seconds, sessions in _zipped(
                            row["count_apps"],
                            row["count_kinds"],
                            row["count_seconds"],
                            row["counts"],
                        )
                    ),
                    row,
                )

    @operation(writes=False)
    def find(self, query: Query) -> Asking[Page]:
        """Return a page of sessions, in the order in which they are reached.

        Waiting ones come by deadline, expired ones by when they are purged; with `prefix` by
        id; all others by key, which is the order of a user's sessions whatever their status.

        Raises:
            InvalidValueError: `after` is no place where a page of this query ended, or `size`
                is not 1 to 500.
        """
        begin = find.Place.read(query).moment
        if find.finds_nothing(query):
            return Page((), None)
        name, asked = f"find_{find.Way.of(query)}", find.bounds(query)
        match (yield from dialect()):
            case Dialect.SQLITE:  # rows are filtered as they are read, up to the end of the page
                return (yield from self._found_reading(query, name, asked, begin))
            case Dialect.POSTGRES:
                return (yield from self._found_at_once(query, name, asked, begin))

    def _found_reading(
        self, query: Query, name: str, asked: dict[str, Any], begin: int
    ) -> Asking[Page]:
        fitting = list[Row]()

        def is_full(row: Row) -> bool:
            if find.fits(query, row):
                fitting.append(row)
            return len(fitting) > query.size

        examined = yield from rows_until(name, is_full, **asked, after_moment=begin)
        shown = fitting[: query.size]
        records = yield from rows("found", places=[row["place"] for row in shown])
        last = examined[-1] if len(examined) == asked["most"] else None
        row = find.next_after(query, fitting, last)
        end = None if row is None else find.Place.of(row, row["moment"]).text(query)
        return self._page(records, end)

    def _found_at_once(
        self, query: Query, name: str, asked: dict[str, Any], begin: int
    ) -> Asking[Page]:
        found = yield from rows(
            name,
            **asked,
            only_status=query.status,
            size=query.size + 1,
            after_at=_EPOCH + begin * _MICROSECOND,
        )
        fitting = [row for row in found if row["fits"]]
        last = found[-1] if found and found[-1]["examined"] == asked["most"] else None
        row = find.next_after(query, fitting, last)
        if row is None:
            return self._page(fitting[: query.size], None)
        moment = ((row["moment"] or _EPOCH) - _EPOCH) // _MICROSECOND
        return self._page(fitting[: query.size], find.Place.of(row, moment).text(query))

    def _page(self, found: Iterable[Row], end: str | None) -> Page:
        return Page([lifecycle_of(row, self.rules) for row in found], end)

    @operation()
    def fold_counts(self) -> Asking[None]:
        """Bring the levels up to date, so that reading them stays cheap.

        Counts older than FINE become hours, and hours older than COUNTS_KEPT are forgotten.
        Nothing is counted twice or lost, whoever folds at the same time.
        """
        yield from rows("fold_counts")
        yield from rows("fold_hours", fine=FINE, kept=COUNTS_KEPT)

    @operation(together=True)
    def recount(self) -> Asking[None]:
        """Set the levels to what the records are, and leave the counts alone. Reads every record.

        For records that came by another way than a change: a copy, or a Lapse of before.
        """
        for name in ("lock_levels", "delete_levels", "recount"):
            yield from rows(name)


def _overview(
    moments: Row,
    levels: Iterable[tuple[Any, ...]],
    counts: Iterable[tuple[Any, ...]],
    brake: Row | None = None,
) -> Overview:
    return Overview(
        now=moments["now"],
        tallies=[Tally(app_name, Status(status), n) for app_name, status, n in levels],
        counts=[Counted(app_name, ChangeKind(kind), at, n) for app_name, kind, at, n in counts],
        next_expiry=moments["next_expiry"],
        next_purge=moments["next_purge"],
        swept_at=moments["swept_at"],
        brake=None if brake is None else brake_of(brake),
    )


def _zipped(*columns: Sequence[Any] | None) -> Iterable[tuple[Any, ...]]:
    """Return the rows of arrays of one length; an array of no rows comes as None."""
    return zip(*(column or () for column in columns), strict=True)
