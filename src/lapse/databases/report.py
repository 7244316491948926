"""What a database of ADK holds: who spoke, who never did, since when, and how fast it grows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from pydantic.alias_generators import to_camel

from lapse.core.clock import iso, iso_or_none
from lapse.core.keys import EVALUATION_PREFIXES
from lapse.core.messages import awaits_answer, is_message, is_message_of_user
from lapse.core.minutes import minutes_of

DAYS: Final = 30
"""How many of the last days are told apart."""

_AGES: Final = (86_400.0, 7 * 86_400.0, 30 * 86_400.0, 365 * 86_400.0)
_DELAYS: Final = (
    *(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0),
    *(3600.0, 7200.0, 21_600.0, 43_200.0, 86_400.0, 7 * 86_400.0, 30 * 86_400.0),
)
_QUANTILES: Final = (0.5, 0.9, 0.99)


class Kind(StrEnum):
    """What a session of ADK's tables is; only EMPTY ones are adopted unasked.

    USED: the user spoke. AGENT_ONLY: only the agent did.
    """

    USED = "used"
    AGENT_ONLY = "agent_only"
    EMPTY = "empty"
    WITH_STATE = "with_state"
    WITH_EVENTS = "with_events"
    AWAITING = "awaiting"
    EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True)
class Question:
    """The question to a database: at which moment, for which TTL, and for which age besides."""

    moment: datetime
    ttl: timedelta
    older_than: timedelta = timedelta(0)

    @property
    def ages(self) -> tuple[float, ...]:
        """Return the limits between ages, in ascending seconds; the TTL is one of them."""
        asked = {self.ttl.total_seconds(), self.older_than.total_seconds()}
        return tuple(sorted({*_AGES, *asked} - {0.0}))

    @property
    def delays(self) -> tuple[float, ...]:
        """Return the limits of the time to the first message, as `ages`."""
        return tuple(sorted({*_DELAYS, self.ttl.total_seconds()}))


@dataclass(frozen=True, slots=True)
class Group:
    """Sessions that have all of this in common.

    `age` and `delay` say how many of the limits were reached; `day` is the day of creation, of
    the last DAYS only; `delay`, to the user's first message, is there for used sessions only.
    """

    app_name: str
    kind: Kind
    age: int
    day: str | None
    delay: int | None
    sessions: int
    bytes: int
    oldest: datetime
    latest_message: datetime | None

    @classmethod
    def of(cls, row: Any, moment: Callable[[Any], datetime]) -> Group:
        """Read a row of the statement `report`; `moment` reads a time as the database has it."""
        latest = row["latest_message"]
        return cls(
            row["app_name"],
            Kind(row["kind"]),
            row["age"],
            row["day"],
            row["delay"],
            row["sessions"],
            row["bytes"],
            moment(row["oldest"]),
            None if latest is None else moment(latest),
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """One session as a database without a query of its own yields it."""

    app_name: str
    session_id: str
    created_at: datetime
    state: str
    events: Sequence[tuple[datetime, Mapping[str, Any], int]] = field(default_factory=list)
    """Time, document and size of each."""


def group(question: Question, sessions: Iterable[Seen]) -> list[Group]:
    """Group sessions one by one, as the statement `report` does where a database can."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for seen in sessions:
        said = (at for at, event, _ in seen.events if is_message_of_user(event))
        first = min(said, default=None)
        kind = _kind(seen, first)
        age = (question.moment - seen.created_at).total_seconds()
        place = (
            seen.app_name,
            kind,
            bisect_right(question.ages, age),
            seen.created_at.date().isoformat() if age < DAYS * 86_400 else None,
            None
            if first is None
            else bisect_right(question.delays, (first - seen.created_at).total_seconds()),
        )
        size = len(seen.state) + len(seen.app_name) + len(seen.session_id)
        if first is None:
            size += sum(length for _, _, length in seen.events)
        found = groups.setdefault(place, [0, 0, seen.created_at, first])
        found[0] += 1
        found[1] += size
        found[2] = min(found[2], seen.created_at)
        found[3] = first if found[3] is None else max(found[3], first or found[3])
    return [Group(*place, *found) for place, found in groups.items()]


def _kind(seen: Seen, first_message: datetime | None) -> Kind:
    if first_message is not None:
        return Kind.USED
    if seen.session_id.startswith(EVALUATION_PREFIXES):
        return Kind.EVALUATION
    if any(awaits_answer(event) for _, event, _ in seen.events):
        return Kind.AWAITING
    if any(is_message(event) for _, event, _ in seen.events):
        return Kind.AGENT_ONLY
    if seen.events:
        return Kind.WITH_EVENTS
    return Kind.EMPTY if seen.state == "{}" else Kind.WITH_STATE


@dataclass(frozen=True, slots=True)
class Orphans:
    """Artifacts of sessions that no longer exist."""

    sessions: int
    artifacts: int


@dataclass(frozen=True, slots=True)
class Report:
    """The counts of a database, or of a session service.

    Attributes:
        place: where it is, without its password.
        size: bytes of the whole database; None where it does not say.
        lobby: how many sessions Lapse keeps there, by status; empty without Lapse.
        orphans: artifacts of sessions that are gone; None where they cannot be listed.
        is_service: whether it is another session service, and no database.
    """

    question: Question
    place: str
    size: int | None
    groups: Sequence[Group]
    lobby: Mapping[str, int]
    orphans: Orphans | None = None
    is_service: bool = False

    def count(self, *kinds: Kind) -> int:
        """Return how many sessions are of these kinds."""
        return sum(group.sessions for group in self.groups if group.kind in kinds)

    def sessions_of(self, app_name: str | None) -> int:
        """Return how many sessions an app has, or all apps where it is None."""
        return sum(part.sessions for part in self.groups if app_name in {None, part.app_name})

    @property
    def due(self) -> int:
        """Return how many empty sessions are older than the TTL: what a sweep would take."""
        return self.older_than(Kind.EMPTY, self.question.ttl)

    def older_than(self, kind: Kind, age: timedelta, app_name: str | None = None) -> int:
        """Return how many sessions of a kind, of an app or of all, are at least so old.

        The age must be one of the limits that were asked for, or zero.
        """
        limits = (0.0, *self.question.ages)
        reached = limits.index(age.total_seconds())
        return sum(
            part.sessions
            for part in self.groups
            if part.kind is kind and part.age >= reached and app_name in {None, part.app_name}
        )

    @property
    def late(self) -> int:
        """Return how many used sessions had their first message only after the TTL."""
        reached = self.question.delays.index(self.question.ttl.total_seconds()) + 1
        return sum(g.sessions for g in self.groups if (g.delay or 0) >= reached)

    @property
    def latest_message(self) -> datetime | None:
        """Return when the latest first message came."""
        return max((g.latest_message for g in self.groups if g.latest_message), default=None)

    def bytes(self, *kinds: Kind) -> int:
        """Return the bytes of the sessions of these kinds; a used one's without its events."""
        return sum(group.bytes for group in self.groups if group.kind in kinds)

    def oldest(self, *kinds: Kind) -> datetime | None:
        """Return when the oldest session of these kinds was created."""
        return min((group.oldest for group in self.groups if group.kind in kinds), default=None)

    def by_age(self, kind: Kind) -> list[int]:
        """Return how many sessions of a kind reached no age limit, one, two, and so on."""
        found = Counter[int]()
        for part in self.groups:
            if part.kind is kind:
                found[part.age] += part.sessions
        return [found[age] for age in range(len(self.question.ages) + 1)]

    def by_app(self) -> dict[str, dict[Kind, int]]:
        """Return how many sessions of each kind an app has, the app with the most first."""
        found: dict[str, dict[Kind, int]] = {}
        for part in self.groups:
            app = found.setdefault(part.app_name, dict.fromkeys(Kind, 0))
            app[part.kind] += part.sessions
        return dict(sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0])))

    def by_day(self) -> dict[str, tuple[int, int]]:
        """Return how many used and empty sessions each of the last days brought."""
        last = self.question.moment.date()
        days = [(last - timedelta(days=ago)).isoformat() for ago in reversed(range(DAYS))]
        found = {day: [0, 0] for day in days}
        for part in self.groups:
            if part.day in found and part.kind in {Kind.USED, Kind.EMPTY}:
                found[part.day][part.kind is Kind.EMPTY] += part.sessions
        return {day: (used, empty) for day, (used, empty) in found.items()}

    @property
    def growth(self) -> float:
        """Return how many empty sessions a day brought, over the last seven whole days."""
        return sum(empty for _, empty in list(self.by_day().values())[-8:-1]) / 7

    def delays(self) -> list[int]:
        """Return how many first messages came after no limit of the delay, one, two, and so on."""
        found = Counter[int]()
        for part in self.groups:
            if part.delay is not None:
                found[part.delay] += part.sessions
        return [found[delay] for delay in range(len(self.question.delays) + 1)]

    def first_messages_within(self) -> dict[float, float | None]:
        """Return for some shares of the first messages within how many seconds they came.

        The seconds are a limit of the delay that the share surely kept; None: it exceeds the
        longest.
        """
        counts, limits = self.delays(), self.question.delays
        sums = [sum(counts[: index + 1]) for index in range(len(counts))]
        if not sums[-1]:
            return {}
        return {
            part: limits[index]
            if (index := bisect_left(sums, part * sums[-1])) < len(limits)
            else None
            for part in _QUANTILES
        }

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        ages, delays = self.question.ages, self.question.delays
        return {
            "database": self.place,
            "databaseBytes": self.size,
            "at": iso(self.question.moment),
            "ttlMinutes": minutes_of(self.question.ttl),
            "sessions": self.count(*Kind),
            **{to_camel(kind): self.count(kind) for kind in Kind},
            "due": self.due,
            "usedAfterTtl": self.late,
            "emptyBytes": self.bytes(Kind.EMPTY),
            "oldestEmpty": iso_or_none(self.oldest(Kind.EMPTY)),
            "oldest": iso_or_none(self.oldest(*Kind)),
            "latestFirstMessage": iso_or_none(self.latest_message),
            "emptyPerDay": round(self.growth, 2),
            "firstMessageWithinSeconds": {
                f"{part:g}": seconds for part, seconds in self.first_messages_within().items()
            },
            "apps": {
                app: {to_camel(kind): count for kind, count in kinds.items()}
                for app, kinds in self.by_app().items()
            },
            "emptyByAge": _buckets(ages, self.by_age(Kind.EMPTY)),
            "usedByAge": _buckets(ages, self.by_age(Kind.USED)),
            "firstMessageDelays": _buckets(delays, self.delays()),
            "days": {
                day: {"used": used, "empty": empty} for day, (used, empty) in self.by_day().items()
            },
            "lobby": dict(self.lobby),
            "orphanedArtifacts": None
            if self.orphans is None
            else {"sessions": self.orphans.sessions, "artifacts": self.orphans.artifacts},
        }


def _buckets(limits: Sequence[float], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return counts with the seconds they lie between; the last one has no end."""
    return [
        {"fromSeconds": start, "toSeconds": end, "sessions": count}
        for start, end, count in zip((0, *limits), (*limits, None), counts, strict=True)
    ]
