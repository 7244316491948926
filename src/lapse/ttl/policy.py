"""The TTL policy: which TTL a new session gets, and the hourly rounds of decisions.

Each replica polls the store every half minute. The replica that polls first in an hour makes that
hour's round, in one conditional statement; all replicas load the decisions at their next poll.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from lapse.auth.principals import Role, current_actor
from lapse.core.ages import Histogram, bucket_of
from lapse.core.arguments import check
from lapse.core.background import Background, Work
from lapse.core.documents import segment_of
from lapse.core.errors import InvalidValueError, NotWithThisStoreError, StoreUnavailableError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.minutes import ttl_from_minutes
from lapse.store.database import Database, check_store
from lapse.ttl import Decision, Policy, Scope, Targets
from lapse.ttl.deciding import GUARD_MAX_AGE, GUARD_MESSAGES, WINDOW_DAYS
from lapse.ttl.observed import Cohort, Count, cohorts, separate_segments
from lapse.ttl.rounds import DecisionsInForce, daily, hourly, ttl_of
from lapse.ttl.store import FirstMessage, Round, TtlStore

_POLL_INTERVAL: Final = timedelta(seconds=30)
"""The pause between two polls, before jitter: a decision reaches all replicas in a minute."""

_FIRST_POLL_TIMEOUT: Final = timedelta(seconds=2)
"""The longest time that `start` waits for the first poll."""

_TIMEOUT: Final = timedelta(seconds=60)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)

_PURGED_REMEMBERED_FOR: Final = timedelta(days=7)
"""For this long after a purge, a message to the purged session is recognised."""

_BATCH: Final = 500
"""Waiting sessions that get a longer TTL in one transaction."""

_PURGE_LATENESS: Final = timedelta(hours=2)
"""A day is folded only this long after its last session can be purged: a sweep may be late."""


class TtlPolicy(Work):
    """The TTL of new sessions: fixed, or learnt from the first messages of others.

    Args:
        store: the database that has the observations and the decisions.
        feed: receives the changes of waiting sessions that get a longer TTL. It must be the
            feed of this process's session service, so that notices hear of them.
        targets: the target shares and the limits of the TTL; `targets.default` is the fixed TTL.
        mode: FIXED makes no decisions, SHADOW makes them, ADAPTIVE makes and applies them.

    Raises:
        InvalidValueError: `mode` is not FIXED and nothing is restorable in this store.
    """

    def __init__(
        self, store: Database, feed: Feed, targets: Targets, mode: Policy = Policy.FIXED
    ) -> None:
        check_store(store=store)
        check(feed=(feed, Feed), targets=(targets, Targets), mode=(mode, Policy))
        if mode is not Policy.FIXED and not store.rules.horizon:
            raise InvalidValueError(
                "LAPSE_TTL_POLICY",
                f"{mode} needs LAPSE_RESTORE_HOURS above 0: where nothing is restorable, late "
                "messages are never seen, and the TTL would only ever get shorter",
            )
        self.mode = mode
        self.targets = targets
        self.in_force: DecisionsInForce = {}
        self.observed: Mapping[Scope, Sequence[Cohort]] = {}
        """The cohorts of each scope, read once a day."""
        self._store = TtlStore(store)
        self._feed = feed
        self._version = 0
        self._folded_on: date | None = None
        self._work = Background("the TTL policy", self._step, timeout=_TIMEOUT)

    def ttl_for(self, key: SessionKey, metadata: Mapping[str, Any]) -> timedelta:
        """Return the TTL of a new session: learnt if ADAPTIVE, and the cap in the control group."""
        if self.mode is not Policy.ADAPTIVE:
            return self.targets.default
        if key.in_control_group:
            return self.targets.cap
        learnt = ttl_of(Scope(key.app_name, segment_of(metadata)), self.in_force, self.default)
        return min(learnt, self.targets.cap)

    def requested(self, minutes: object, *, field: str) -> timedelta:
        """Read a TTL that was asked for: at most 30 days.

        If the task works for a user, it is at most the TTL of the settings or the restore time,
        whichever is longer: a user may not keep what nobody uses for longer than others.

        Raises:
            InvalidValueError: it is not a number of minutes, or is out of bounds.
        """
        if current_actor(Role.USER) is None:
            return ttl_from_minutes(minutes, field=field)
        longest = max(self.default, self._store.rules.horizon)
        return ttl_from_minutes(minutes, field=field, longest=longest)

    async def refuse(self, key: SessionKey) -> None:
        """Count a message to a purged session; a failure to count does not fail the request."""
        with suppress(StoreUnavailableError, NotWithThisStoreError):
            await self._store.refuse(key)

    @property
    def default(self) -> timedelta:
        """Return the TTL of scopes without a learnt one."""
        return self.targets.default

    async def poll(self) -> bool:
        """Load new decisions; make this hour's round if no replica has, and return True then."""
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
        """Start polling, and wait at most two seconds for the first poll.

        The first session then has the TTL in force.
        """
        await self._work.start()
        await self._work.first_step(within=_FIRST_POLL_TIMEOUT)

    async def stop(self) -> None:
        """Stop polling, and return once it has stopped."""
        await self._work.stop()

    async def _step(self) -> timedelta:
        await self.poll()
        return _POLL_INTERVAL * (0.5 + random.random())

    async def _follow(self, version: int) -> None:
        decisions = await self._store.ttl_decisions()
        self.in_force = {decision.scope: decision for decision in decisions}
        self._version = version

    async def _make_round(self, found: Round, hour: int) -> bool:
        before = self.in_force
        decisions: list[Decision] = []
        segments = frozenset(scope for scope in before if scope.segment)
        if found.slot is None or (_EPOCH + found.slot * _HOUR).date() < found.now.date():
            counts, segments = await self._observed(found.now)
            decisions += daily(cohorts(counts, segments), before, self.targets, found.now)
        in_force = {**before, **{decision.scope: decision for decision in decisions}}
        recent = await self._store.recent_first_messages(
            newest=GUARD_MESSAGES, max_age=GUARD_MAX_AGE
        )
        decisions += hourly(newest_ages(recent, segments), in_force, self.targets, found.now)
        if not await self._store.record_decisions(decisions, slot=hour, version=found.version):
            return False
        await self._follow(found.version + 1)
        if self.mode is Policy.ADAPTIVE:
            await self._lengthen(before, decisions)
        return True

    async def _observed(self, now: datetime) -> tuple[Sequence[Count], frozenset[Scope]]:
        """Return the counts of the window, and the segments that are counted separately."""
        since = now - timedelta(days=WINDOW_DAYS + 1) - self.targets.horizon
        counts = await self._store.observed(since=since.date())
        return counts, separate_segments(counts, known=self.in_force)

    async def _fold(self, now: datetime) -> None:
        """Fold complete days into counts; every process does it daily, and none counts twice."""
        counts, segments = await self._observed(now)
        self.observed = cohorts(counts, segments)
        complete = now - max(self.targets.horizon, GUARD_MAX_AGE) - _PURGE_LATENESS
        await self._store.fold_observations(
            before=datetime.combine(complete.date(), time(0), UTC),
            segments=segments,
            forgotten=now - _PURGED_REMEMBERED_FOR,
        )
        self._folded_on = now.date()

    async def _lengthen(self, before: DecisionsInForce, decisions: Sequence[Decision]) -> None:
        """Give waiting sessions the longer TTL that new sessions get."""
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
