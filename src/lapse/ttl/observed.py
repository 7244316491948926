"""Counts of what became of sessions, by app, segment and day of creation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from lapse.core.ages import BUCKETS, Histogram
from lapse.core.documents import NO_SEGMENT

MOST_PER_USER: Final = 3
"""Of one user and day, only the first sessions count, so that no user dominates."""

MOST_SEGMENTS: Final = 8
"""Each app has at most this many segments; sessions of others count for the app alone."""

NONE: Final = Histogram()
"""A histogram without ages."""


class Outcome(StrEnum):
    """What became of a session.

    USED: it had a first message, at the recorded age. CONTROL: it had one, and is in the control
    group. SURPLUS: it had one, but its user had MOST_PER_USER sessions before it on that day.
    WITHDRAWN: its owner deleted it before any message. UNUSED: it was purged without a message.
    REFUSED: a message came after the purge; the session is counted as UNUSED, too.
    """

    USED = "used"
    CONTROL = "control"
    SURPLUS = "surplus"
    WITHDRAWN = "withdrawn"
    UNUSED = "unused"
    REFUSED = "refused"


class Scope(NamedTuple):
    """The sessions that share a TTL: a segment of an app, or with NO_SEGMENT the whole app."""

    app_name: str
    segment: str = NO_SEGMENT


@dataclass(frozen=True, slots=True)
class Cohort:
    """The sessions of one scope that were created on one day (UTC), by outcome.

    Outcomes with an age are histograms of ages, the others are numbers of sessions.
    """

    day: date
    used: Histogram = NONE
    control: Histogram = NONE
    withdrawn: Histogram = NONE
    unused: int = 0
    surplus: int = 0
    refused: int = 0

    @property
    def created(self) -> int:
        """Return how many sessions of the day have an outcome: all, once the day is mature."""
        return self.counted + self.surplus

    @property
    def counted(self) -> int:
        """Return how many sessions have an outcome, without the surplus."""
        parts = (self.used, self.control, self.withdrawn)
        return sum(sum(part.counts) for part in parts) + self.unused

    @property
    def first_messages(self) -> Histogram:
        """Return the ages of all first messages that count, the control group included."""
        return self.used + self.control

    def mature(self, now: datetime, horizon: timedelta) -> bool:
        """Return whether every session of the day is past the horizon: the counts are final."""
        midnight = datetime(self.day.year, self.day.month, self.day.day, tzinfo=now.tzinfo)
        return midnight + timedelta(days=1) + horizon <= now

    def __add__(self, other: Cohort) -> Cohort:
        return Cohort(
            max(self.day, other.day),
            self.used + other.used,
            self.control + other.control,
            self.withdrawn + other.withdrawn,
            self.unused + other.unused,
            self.surplus + other.surplus,
            self.refused + other.refused,
        )


@dataclass(frozen=True, slots=True)
class Count:
    """The number of sessions of one scope, day of creation, outcome and bucket of ages."""

    scope: Scope
    day: date
    outcome: Outcome
    bucket: int
    sessions: int


def separate_segments(counts: Iterable[Count], known: Iterable[Scope] = ()) -> frozenset[Scope]:
    """Return the segments that are counted separately, at most MOST_SEGMENTS of each app.

    Those in `known` come first, then the largest in `counts`. Scopes of whole apps in `known` are
    ignored.
    """
    kept: dict[str, list[Scope]] = {}
    for scope in sorted({scope for scope in known if scope.segment}):
        kept.setdefault(scope.app_name, []).append(scope)
    sizes: dict[Scope, int] = {}
    for count in counts:
        if count.scope.segment:
            sizes[count.scope] = sizes.get(count.scope, 0) + count.sessions
    for scope in sorted(sizes, key=lambda scope: (-sizes[scope], scope)):
        of_app = kept.setdefault(scope.app_name, [])
        if scope not in of_app and len(of_app) < MOST_SEGMENTS:
            of_app.append(scope)
    return frozenset(scope for of_app in kept.values() for scope in of_app[:MOST_SEGMENTS])


def cohorts(
    counts: Iterable[Count], segments: frozenset[Scope]
) -> Mapping[Scope, tuple[Cohort, ...]]:
    """Return the cohorts of each app and of each of `segments`, in the order of days.

    A session of a segment counts for its app, too.
    """
    gathered: dict[Scope, dict[date, _Gathered]] = {}
    for count in counts:
        own = (count.scope,) if count.scope in segments else ()
        for scope in (Scope(count.scope.app_name), *own):
            gathered.setdefault(scope, {}).setdefault(count.day, _Gathered()).add(count)
    return {
        scope: tuple(days[day].cohort(day) for day in sorted(days))
        for scope, days in gathered.items()
    }


@dataclass(slots=True)
class _Gathered:
    """A cohort in the making."""

    ages: dict[Outcome, list[int]] = field(default_factory=dict)
    sessions: dict[Outcome, int] = field(default_factory=dict)

    def add(self, count: Count) -> None:
        ages = self.ages.setdefault(count.outcome, [0] * BUCKETS)
        ages[count.bucket] += count.sessions
        self.sessions[count.outcome] = self.sessions.get(count.outcome, 0) + count.sessions

    def cohort(self, day: date) -> Cohort:
        def ages(outcome: Outcome) -> Histogram:
            return Histogram(tuple(self.ages[outcome])) if outcome in self.ages else NONE

        return Cohort(
            day,
            ages(Outcome.USED),
            ages(Outcome.CONTROL),
            ages(Outcome.WITHDRAWN),
            self.sessions.get(Outcome.UNUSED, 0),
            self.sessions.get(Outcome.SURPLUS, 0),
            self.sessions.get(Outcome.REFUSED, 0),
        )
