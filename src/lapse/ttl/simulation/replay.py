"""Replays a history: the policy's rounds in virtual time, with fixed TTLs to compare."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from math import ceil, isfinite
from typing import Final

from lapse.core.ages import BUCKETS, EDGES, Histogram
from lapse.core.documents import NO_SEGMENT
from lapse.core.keys import SessionKey
from lapse.ttl import Cohort, Decision, Scope, Targets
from lapse.ttl.deciding import GUARD_MAX_AGE, GUARD_MESSAGES, GUARD_MIN_MESSAGES, WINDOW_DAYS
from lapse.ttl.observed import MOST_PER_USER, MOST_SEGMENTS
from lapse.ttl.rounds import daily, hourly, ttl_of
from lapse.ttl.simulation.traces import Arrival

APP: Final = "simulated"
"""The app of every session of a replayed history."""

_HOUR: Final = 3_600
_DAY: Final = 86_400
_EDGE_SECONDS: Final = [edge.total_seconds() for edge in EDGES]

OnProgress = Callable[[timedelta], None]
"""Called with the part of the history that was replayed so far."""


@dataclass(slots=True)
class Score:
    """The result of a policy: its misses, and the time that it kept empty sessions.

    Attributes:
        sessions: the number of sessions.
        within: the number of first messages within the horizon.
        soft: the number of them that found their session expired.
        hard: the number of first messages after the horizon.
        empty_seconds: the time that sessions were kept without a message, summed.
    """

    sessions: int = 0
    within: int = 0
    soft: int = 0
    hard: int = 0
    empty_seconds: float = 0.0

    @property
    def soft_miss_rate(self) -> float:
        """Return the share of first messages in the horizon that found their session expired."""
        return self.soft / self.within if self.within else 0.0

    @property
    def hard_miss_rate(self) -> float:
        """Return the share of all first messages that came after the horizon."""
        heard = self.within + self.hard
        return self.hard / heard if heard else 0.0

    @property
    def empty_session_hours(self) -> float:
        """Return the time that sessions were kept without a message, summed, in hours."""
        return self.empty_seconds / _HOUR


@dataclass(slots=True)
class Replayed:
    """The result of the policy on a history, and the history's delays to compare fixed TTLs.

    Attributes:
        horizon: the horizon of the replay.
        adaptive: the result of the policy.
        ttls: each change of the app's TTL: its time and the new TTL.
        days: for each day of creation, the number of first messages within the horizon, and the
            number of them that found their session expired.
        decisions: the decisions of the policy, in order.
        control_seconds: the extra time that the control group would be kept empty, which is in
            no score.
        delays: the delays of the first messages in seconds, ascending.
        sums: the running sums of `delays`.
    """

    horizon: timedelta
    adaptive: Score = field(default_factory=Score)
    ttls: list[tuple[datetime, timedelta]] = field(default_factory=list)
    days: dict[date, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    decisions: list[Decision] = field(default_factory=list)
    control_seconds: float = 0.0
    delays: array[float] = field(default_factory=lambda: array("d"))
    sums: Sequence[float] = ()

    def fixed(self, ttl: timedelta) -> Score:
        """Return the result of a fixed TTL on the same history."""
        seconds = ttl.total_seconds()
        in_time = bisect_left(self.delays, seconds)
        within = bisect_right(self.delays, self.horizon.total_seconds())
        sessions = self.adaptive.sessions
        empty = (self.sums[in_time - 1] if in_time else 0.0) + seconds * (sessions - in_time)
        soft = max(0, within - in_time)
        return Score(sessions, within, soft, len(self.delays) - within, empty)

    def oracle(self, soft: float) -> timedelta:
        """Return the shortest fixed TTL that would have met the soft target on this history.

        Nobody can know it in advance; it shows how far a policy is from the best.
        """
        within = bisect_right(self.delays, self.horizon.total_seconds())
        if not within:
            return timedelta(0)
        last = self.delays[max(0, ceil((1 - soft) * within - 1e-9) - 1)]
        # A message at the deadline itself comes too late, so the TTL is longer by the least step.
        return timedelta(seconds=last) + timedelta(microseconds=1)


def replay(
    history: Iterable[Arrival], targets: Targets, progress: OnProgress = lambda _: None
) -> Replayed:
    """Replay a history that is in the order of creation, and return the results."""
    run = _Run(targets)
    began: float | None = None
    for number, arrival in enumerate(history):
        if arrival.created >= run.next_round:
            run.advance(arrival.created)
            began = arrival.created if began is None else began
            progress(timedelta(seconds=arrival.created - began))
        run.add(arrival, in_control=SessionKey("", "", str(number)).in_control_group)
    return run.end()


class _Run:
    """The state of a replay."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self.next_round = float("-inf")
        self._result = Replayed(targets.horizon)
        self._horizon = targets.horizon.total_seconds()
        self._cap = targets.cap.total_seconds()
        self._in_force: dict[Scope, Decision] = {}
        self._segments: set[str] = set()
        self._days: dict[Scope, dict[date, _Day]] = defaultdict(dict)
        self._of_user: dict[tuple[str, int], int] = defaultdict(int)
        self._coming: dict[int, list[tuple[float, int, str]]] = defaultdict(list)
        self._recent: dict[Scope, deque[tuple[float, int]]] = defaultdict(
            lambda: deque(maxlen=GUARD_MESSAGES)
        )
        self._ttls: dict[str, float] = {}
        self._date = date.min
        self._today: date | None = None

    def add(self, arrival: Arrival, *, in_control: bool) -> None:
        """Create a session, and count what becomes of it under the TTL in force."""
        _, delay, user, segment = arrival
        segment = self._known(segment)
        ttl = self._ttl(segment)
        score = self._result.adaptive
        score.sessions += 1
        score.empty_seconds += min(delay, ttl)
        if in_control:
            self._result.control_seconds += min(delay, self._cap) - min(delay, ttl)
        if isfinite(delay):
            self._result.delays.append(delay)
        heard = delay <= self._horizon
        if heard:
            missed = delay >= ttl
            score.within += 1
            score.soft += missed
            of_day = self._result.days[self._date]
            of_day[0] += 1
            of_day[1] += missed
        elif isfinite(delay):
            score.hard += 1
        self._observe(arrival, segment, heard=heard, in_control=in_control, user=user)

    def advance(self, until: float) -> None:
        """Make the round of each hour that begins up to `until`, in seconds since the epoch."""
        hour = int(until // _HOUR) * _HOUR
        first = hour if self.next_round == float("-inf") else int(self.next_round)
        for moment in range(first, hour + 1, _HOUR):
            self._round(moment)
        self.next_round = hour + _HOUR

    def end(self) -> Replayed:
        """Return the results."""
        self._result.delays = array("d", sorted(self._result.delays))
        self._result.sums = list(accumulate(self._result.delays))
        return self._result

    def _observe(
        self, arrival: Arrival, segment: str, *, heard: bool, in_control: bool, user: str | None
    ) -> None:
        scopes = (Scope(APP), Scope(APP, segment)) if segment else (Scope(APP),)
        bucket = -1
        if heard:
            bucket = max(0, bisect_left(_EDGE_SECONDS, arrival.delay) - 1)
            if user is not None:
                of_user = (user, int(arrival.created // _DAY))
                self._of_user[of_user] += 1
                if self._of_user[of_user] > MOST_PER_USER:
                    return
            said = arrival.created + arrival.delay
            self._coming[int(said // _HOUR)].append((said, bucket, segment))
        for scope in scopes:
            self._days[scope].setdefault(self._date, _Day()).add(bucket, in_control=in_control)

    def _round(self, moment: int) -> None:
        now = datetime.fromtimestamp(moment, UTC)
        self._date = now.date()
        if not self._result.ttls:
            self._result.ttls.append((now, self.targets.default))
        for said, bucket, segment in sorted(self._coming.pop(moment // _HOUR - 1, ())):
            self._recent[Scope(APP)].append((said, bucket))
            if segment:
                self._recent[Scope(APP, segment)].append((said, bucket))
        decisions: list[Decision] = []
        if self._date != self._today:
            self._today = self._date
            self._of_user.clear()
            decisions += daily(self._cohorts(now), self._in_force, self.targets, now)
            self._in_force |= {decision.scope: decision for decision in decisions}
        recent = self._recent_ages(moment)
        decisions += hourly(recent, self._in_force, self.targets, now)
        if decisions:
            self._follow(decisions, now)

    def _follow(self, decisions: Sequence[Decision], now: datetime) -> None:
        self._result.decisions += decisions
        self._in_force |= {decision.scope: decision for decision in decisions}
        self._ttls.clear()
        ttl = timedelta(seconds=self._ttl(NO_SEGMENT))
        if self._result.ttls[-1][1] != ttl:
            self._result.ttls.append((now, ttl))

    def _cohorts(self, now: datetime) -> Mapping[Scope, Sequence[Cohort]]:
        oldest = (now - timedelta(days=WINDOW_DAYS + 1) - self.targets.horizon).date()
        cohorts: dict[Scope, Sequence[Cohort]] = {}
        for scope, days in self._days.items():
            for day in [day for day in days if day < oldest]:
                del days[day]
            cohorts[scope] = [
                of_day.cohort(day)
                for day, of_day in days.items()
                if Cohort(day).mature(now, self.targets.horizon)
            ]
        return cohorts

    def _recent_ages(self, moment: int) -> dict[Scope, Histogram]:
        oldest = moment - GUARD_MAX_AGE.total_seconds()
        ages: dict[Scope, Histogram] = {}
        for scope, recent in self._recent.items():
            while recent and recent[0][0] <= oldest:
                recent.popleft()
            if len(recent) >= GUARD_MIN_MESSAGES:
                ages[scope] = Histogram.of(bucket for _, bucket in recent)
        return ages

    def _known(self, segment: str) -> str:
        if not segment or segment in self._segments:
            return segment
        if len(self._segments) == MOST_SEGMENTS:
            return NO_SEGMENT
        self._segments.add(segment)
        return segment

    def _ttl(self, segment: str) -> float:
        ttl = self._ttls.get(segment)
        if ttl is None:
            found = ttl_of(Scope(APP, segment), self._in_force, self.targets.default)
            ttl = self._ttls[segment] = found.total_seconds()
        return ttl


@dataclass(slots=True)
class _Day:
    """The cohort of a day in the making."""

    used: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    control: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    unused: int = 0

    def add(self, bucket: int, *, in_control: bool) -> None:
        if bucket < 0:
            self.unused += 1
        else:
            (self.control if in_control else self.used)[bucket] += 1

    def cohort(self, day: date) -> Cohort:
        return Cohort(
            day,
            Histogram(tuple(self.used)),
            Histogram(tuple(self.control)),
            unused=self.unused,
        )
