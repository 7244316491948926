"""Counts of changes, levels by status, and pages of sessions.

Every change of a session is counted in the transaction that makes it, so the counts are the same
on every replica and after any crash. The cost of reading them depends on what was counted lately,
never on how many sessions are stored. Only the waiting sessions in which the agent alone spoke are
counted when they are read, by an index that has no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from lapse.store.records import shown_of
from lapse.sweep.rules import Brake
from lapse.sweep.store import brake_of

COUNT_INTERVAL: Final = timedelta(minutes=5)
"""Changes within this time are counted in one number."""

INTERVALS_KEPT_FOR: Final = timedelta(hours=2)
"""After this time, the numbers of an hour's intervals become one number for the hour."""

HOURS_KEPT_FOR: Final = timedelta(days=35)
"""After this time, the number of an hour is deleted."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The number of changes of one kind in one app in the interval, or the hour, from `at` on."""

    app_name: str
    kind: ChangeKind
    at: datetime
    sessions: int


@dataclass(frozen=True, slots=True)
class Tally:
    """The number of sessions of one app that have one status in the lobby's records."""

    app_name: str
    status: Status
    sessions: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The levels, the counts and the state of sweeping, at one moment of the store's clock.

    Attributes:
        now: that moment.
        tallies: the number of sessions by app and status.
        counts: the number of changes by app, kind and time, from the time that was asked for.
        next_expiry: the nearest deadline of a waiting session; it is overdue if in the past.
            None: no session waits.
        next_purge: when the next expired session is no longer restorable; None: there is none.
        swept_at: when a sweeper of any process last reported; None: never.
        brake: the brake that holds every purge; None: none is set.
        agent_only: the number of waiting sessions by app in which only the agent spoke.
        used_but_expired: the number of sessions that are expired although they had a message,
            counted up to 10,000; it is 0, or a promise is broken.
    """

    now: datetime
    tallies: Sequence[Tally]
    counts: Sequence[Counted]
    next_expiry: datetime | None
    next_purge: datetime | None
    swept_at: datetime | None
    brake: Brake | None
    agent_only: Mapping[str, int] = field(default_factory=dict)
    used_but_expired: int = 0

    @property
    def overdue(self) -> timedelta:
        """Return how long ago the earliest deadline passed; zero if no session is overdue."""
        if self.next_expiry is None:
            return timedelta(0)
        return max(self.now - self.next_expiry, timedelta(0))

    def largest_apps(self, most: int | None = None) -> list[str]:
        """Return the names of at most `most` apps, those with the most sessions, in order."""
        sessions = Counter({count.app_name: 0 for count in self.counts})
        for tally in self.tallies:
            sessions[tally.app_name] += tally.sessions
        return sorted(app for app, _ in sessions.most_common(most))


@dataclass(frozen=True, slots=True)
class Query:
    """The filters of a page of sessions; None leaves a filter out.

    Attributes:
        status: the stored status. A waiting session past its deadline that no sweep has expired
            yet is found as waiting, although its record says expired.
        app_name: only sessions of this app.
        user_id: only sessions of this user.
        prefix: only sessions whose id begins with this text.
        after: the `next` of the page before; None for the first page.
        size: the largest number of sessions on the page, 1 to 500.
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
        records: the records of the sessions, in the order that `OverviewStore.find` names.
        next: the `after` of the next page; None on the last page. A page that is short or empty
            may have a next page, because a page examines a bounded number of records.
    """

    records: Sequence[Lifecycle]
    next: str | None


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class OverviewStore(Part):
    """Reads and maintains counts and levels, and finds sessions."""

    @operation(writes=False)
    def overview(self, *, since: timedelta, by_app: bool = True) -> Asking[Overview]:
        """Return the overview of one snapshot, with the counts from `since` ago until now.

        Without `by_app` all apps count as one, whose name is empty: the answer stays small with
        any number of apps.
        """
        of = "" if by_app else "_of_all"
        match (yield from dialect()):
            case Dialect.SQLITE:  # a read transaction is one snapshot
                levels = yield from rows(f"levels{of}")
                counts = yield from rows(f"counts{of}", max_age=since + COUNT_INTERVAL)
                heard = yield from rows(f"agent_only{of}")
                return _overview(
                    (yield from only("moments")),
                    [(row["app_name"], row["status"], row["sessions"]) for row in levels],
                    [(row["app_name"], row["kind"], row["at"], row["sessions"]) for row in counts],
                    [(row["app_name"], row["sessions"]) for row in heard],
                    *(yield from rows("brake")),
                )
            case Dialect.POSTGRES:  # one statement is one snapshot: its lists come as arrays
                row = yield from only(f"overview{of}", max_age=since + COUNT_INTERVAL)
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
                    _zipped(row["agent_only_apps"], row["agent_only"]),
                    row,
                )

    @operation(writes=False)
    def largest_apps(self, *, most: int) -> Asking[Sequence[str]]:
        """Return the names of at most `most` apps, those with the most records, in order."""
        found = yield from rows("largest_apps", most=most)
        return sorted(row["app_name"] for row in found)

    @operation(writes=False)
    def unrecorded(self) -> Asking[int]:
        """Return how many sessions of ADK's tables have no record, and are in no other number.

        Stock ADK has written them, or they are from before Lapse. It reads every session: with a
        million of them it takes about a second.
        """
        row = yield from only("unrecorded")
        return int(row["sessions"])

    @operation(writes=False)
    def find(self, query: Query) -> Asking[Page]:
        """Return a page of sessions.

        The order is by key with `user_id`; otherwise by id with `prefix`; otherwise by deadline
        for waiting sessions, by time of purge for expired ones, and by key for all others.

        Raises:
            InvalidValueError: `after` is not the `next` of a page with the same filters, or
                `size` is not 1 to 500.
        """
        begin = find.PageCursor.read(query).moment
        if find.finds_nothing(query):
            return Page((), None)
        name, asked = f"find_{find.Way.of(query)}", find.statement_parameters(query)
        match (yield from dialect()):
            case Dialect.SQLITE:  # rows are filtered as they are read, until the page is full
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
        records = yield from rows("found", row_ids=[row["row_id"] for row in shown])
        last = examined[-1] if len(examined) == asked["most"] else None
        row = find.next_after(query, fitting, last)
        end = None if row is None else find.PageCursor.of(row, row["moment"]).text(query)
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
        return self._page(fitting[: query.size], find.PageCursor.of(row, moment).text(query))

    def _page(self, found: Iterable[Row], end: str | None) -> Page:
        return Page([shown_of(row, self.rules) for row in found], end)

    @operation()
    def fold_counts(self) -> Asking[None]:
        """Bring the levels up to date, so that reading them stays cheap.

        Counts older than INTERVALS_KEPT_FOR become counts of an hour, and hours older than
        HOURS_KEPT_FOR are deleted. Several processes may fold at the same time: nothing is
        counted twice or lost. A repeat folds what is not folded yet.
        """
        yield from rows("fold_counts")
        yield from rows("fold_hours", fine=INTERVALS_KEPT_FOR, kept=HOURS_KEPT_FOR)

    @operation(together=True)
    def recount(self) -> Asking[None]:
        """Set the levels to the numbers of records by status, in one transaction; counts stay.

        It is for records that no counted change has made: those of a copied database, or of a
        version of Lapse that did not count. It reads every record. A repeat counts anew.
        """
        for name in ("lock_levels", "delete_levels", "recount"):
            yield from rows(name)


def _overview(
    moments: Row,
    levels: Iterable[tuple[Any, ...]],
    counts: Iterable[tuple[Any, ...]],
    agent_only: Iterable[tuple[Any, ...]],
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
        agent_only=dict(agent_only),
        used_but_expired=moments["used_but_expired"],
    )


def _zipped(*columns: Sequence[Any] | None) -> Iterable[tuple[Any, ...]]:
    """Return the rows of columns of equal length; PostgreSQL returns None for empty columns."""
    return zip(*(column or () for column in columns), strict=True)
