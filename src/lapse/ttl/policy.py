"""Which TTL a new session gets, and the rounds of decisions that teach it.

Any number of replicas look at the store every half minute. The one that comes first in an hour
makes that hour's round, in one conditional statement; all follow what was decided.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from lapse.core.ages import Histogram, bucket_of
from lapse.core.background import Background, Work
from lapse.core.documents import segment_of
from lapse.core.errors import InvalidValueError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.store.database import Database
from lapse.ttl import Decision, Policy, Scope, Targets
from lapse.ttl.deciding import GUARD_MESSAGES, GUARD_REACH, WINDOW_DAYS
from lapse.ttl.observed import Cohort, Count, admitted, cohorts
from lapse.ttl.rounds import Standing, daily, hourly, ttl_of
from lapse.ttl.store import FirstMessage, Round, TtlStore

_LOOKS: Final = timedelta(seconds=30)
"""How often to look for what others have decided: all follow within a minute."""

_FIRST_LOOK: Final = timedelta(seconds=2)
"""How long a start waits for the first look."""

_TIMEOUT: Final = timedelta(seconds=60)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)

_REMEMBERED: Final = timedelta(days=7)
"""For how long a message to a purged session is known as one."""

_BATCH: Final = 500
_LATE_PURGES: Final = timedelta(hours=2)


class TtlPolicy(Work):
    """The TTL of new sessions: fixed, or learnt from the first messages of others.

    Args:
        store: where sessions are observed and decisions are kept.
        feed: where the changes of sessions that wait for longer are published: the feed of
            whatever else works on the store in this process.
        targets: what to aim at; its default is the fixed TTL.
        mode: FIXED decides nothing, SHADOW decides and does not apply it, ADAPTIVE applies it.

    Raises:
        InvalidValueError: a mode that learns, on a store where nothing is restorable.
    """

    def __init__(
        self, store: Database, feed: Feed, targets: Targets, mode: Policy = Policy.FIXED
    ) -> None:
        if mode is not Policy.FIXED and not store.rules.horizon:
            raise InvalidValueError(
                "LAPSE_TTL_POLICY",
                f"{mode} needs LAPSE_RESTORE_HOURS above 0: where nothing is restorable, late "
                "messages are never seen, and the TTL would only ever get shorter",
            )
        self.mode = mode
        self.targets = targets
        self.standing: Standing = {}
        self.observed: Mapping[Scope, Sequence[Cohort]] = {}
        """What was observed of the sessions of each day, as last read: once a day."""
        self._store = TtlStore(store)
        self._feed = feed
        self._version = 0
        self._folded_on: date | None = None
        self._work = Background("the TTL policy", self._step, timeout=_TIMEOUT)

    def ttl_for(self, key: SessionKey, metadata: Mapping[str, Any]) -> timedelta:
        """Return the TTL of a new session; in the control group it is the cap."""
        if self.mode is not Policy.ADAPTIVE:
            return self.targets.default
        if key.in_control_group:
            return self.targets.cap
        learnt = ttl_of(Scope(key.app_name, segment_of(metadata)), self.standing, self.default)
        return min(learnt, self.targets.cap)

    @property
    def default(self) -> timedelta:
        """Return the TTL where nothing was learnt."""
        return self.targets.default

    async def look(self) -> bool:
        """Follow what was decided; make the round of this hour if nobody has: True then."""
        found = await self._store.ttl_round()
        if found.version != self._version:
            await self._follow(found.version)
        hour = (found.now - _EPOCH) // _HOUR
        made = False
        if self.mode is not Policy.FIXED and (found.slot is None or found.slot < hour):
            made = await self._make_round(found, hour)
        if self._folded_on != found.now.date():
            await self._fold(found.now)
        return made

    async def start(self) -> None:
        """Look once, so that the first session has the TTL in force, and go on looking."""
        await self._work.start()
        await self._work.first_step(within=_FIRST_LOOK)

    async def stop(self) -> None:
        """Stop, and return once stopped."""
        await self._work.stop()

    async def _step(self) -> timedelta:
        await self.look()
        return _LOOKS * (0.5 + random.random())

    async def _follow(self, version: int) -> None:
        decisions = await self._store.ttl_decisions()
        self.standing = {decision.scope: decision for decision in decisions}
        self._version = version

    async def _make_round(self, found: Round, hour: int) -> bool:
        before = self.standing
        decisions: list[Decision] = []
        segments = frozenset(scope for scope in before if scope.segment)
        if found.slot is None or (_EPOCH + found.slot * _HOUR).date() < found.now.date():
            counts, segments = await self._observed(found.now)
            decisions += daily(cohorts(counts, segments), before, self.targets, found.now)
        standing = {**before, **{decision.scope: decision for decision in decisions}}
        recent = await self._store.recent_first_messages(newest=GUARD_MESSAGES, reach=GUARD_REACH)
        decisions += hourly(newest_ages(recent, segments), standing, self.targets, found.now)
        if not await self._store.record_decisions(decisions, slot=hour, version=found.version):
            return False
        await self._follow(found.version + 1)
        if self.mode is Policy.ADAPTIVE:
            await self._lengthen(before, decisions)
        return True

    async def _observed(self, now: datetime) -> tuple[Sequence[Count], frozenset[Scope]]:
        """Return the counts of the window, and the segments that are told apart in it."""
        since = now - timedelta(days=WINDOW_DAYS + 1) - self.targets.horizon
        counts = await self._store.observed(since=since.date())
        return counts, admitted(counts, known=self.standing)

    async def _fold(self, now: datetime) -> None:
        """Fold the days that are complete: once a day in each process, which does no harm."""
        counts, segments = await self._observed(now)
        self.observed = cohorts(counts, segments)
        complete = now - max(self.targets.horizon, GUARD_REACH) - _LATE_PURGES
        await self._store.fold_observations(
            before=datetime.combine(complete.date(), time(0), UTC),
            segments=segments,
            forgotten=now - _REMEMBERED,
        )
        self._folded_on = now.date()

    async def _lengthen(self, before: Standing, decisions: Sequence[Decision]) -> None:
        """Let sessions that wait already wait for as long as new ones will."""
        for decision in decisions:
            old = ttl_of(decision.scope, before, self.default)
            if decision.ttl is None or decision.ttl <= old:
                continue
            full = True
            while full:
                lengthened = await self._store.lengthen_waiting(
                    decision.scope, before=old, ttl=decision.ttl, limit=_BATCH
                )
                self._feed.publish(lengthened.changes)
                full = lengthened.value == _BATCH


def newest_ages(
    recent: Sequence[FirstMessage], segments: frozenset[Scope]
) -> dict[Scope, Histogram]:
    """Return the ages of the newest first messages of each app and of each of `segments`."""
    of_scope: dict[Scope, list[FirstMessage]] = {}
    for first in recent:
        own = (first.scope,) if first.scope in segments else ()
        for scope in (Scope(first.scope.app_name), *own):
            of_scope.setdefault(scope, []).append(first)
    return {
        scope: Histogram.of(
            bucket_of(first.age)
            for first in sorted(found, key=lambda first: first.at)[-GUARD_MESSAGES:]
        )
        for scope, found in of_scope.items()
    }
