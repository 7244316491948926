"""The part of a store that observes sessions and keeps the TTLs decided from what it observed.

Observing is part of the transitions themselves: the transaction of a first message, of a delete
and of a purge writes what it observed, once. What is here reads it and settles it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change
from lapse.ttl import Decision, Scope
from lapse.ttl.observed import Count


@dataclass(frozen=True, slots=True)
class FirstMessage:
    """When the first message of one session came, and how old the session was."""

    scope: Scope
    at: datetime
    age: timedelta


@dataclass(frozen=True, slots=True)
class Round:
    """How far the rounds of decisions are.

    Attributes:
        now: the store's time.
        slot: the hour of the last round, counted from the epoch; None before the first.
        version: moves with everything that is decided; 0 before the first round.
    """

    now: datetime
    slot: int | None
    version: int


class Observations(Protocol):
    """What is observed, and what was decided."""

    async def observed(self, *, since: date) -> Sequence[Count]:
        """Return the counts of the sessions created on `since` (UTC) or later, folded or not.

        Of one user and day, the MOST_PER_USER created first count; the others with a first
        message are SURPLUS. WITHDRAWN, UNUSED and REFUSED come at their end.
        """
        ...

    async def recent_first_messages(
        self, *, newest: int, reach: timedelta
    ) -> Sequence[FirstMessage]:
        """Return of each scope the `newest` first messages that count, none older than `reach`."""
        ...

    async def fold_observations(
        self, *, before: datetime, segments: Collection[Scope], forgotten: datetime
    ) -> None:
        """Turn the observations of sessions created before `before`, a midnight, into counts.

        Only `segments` are told apart from then on. Nothing is counted twice, whoever folds
        at the same time. Sessions purged before `forgotten` cannot be refused any more.
        """
        ...

    async def refuse(self, key: SessionKey) -> bool:
        """Count a message to a session that was purged; True when it was, and was not counted."""
        ...

    async def ttl_round(self) -> Round:
        """Return how far the rounds are."""
        ...

    async def ttl_decisions(self, *, newest: int = 1) -> Sequence[Decision]:
        """Return the `newest` decisions of each scope, oldest first."""
        ...

    async def record_decisions(
        self, decisions: Sequence[Decision], *, slot: int, version: int
    ) -> bool:
        """Record what a round has decided; False, and nothing, when another came first.

        `version` is that of the round that the decisions are based on.
        """
        ...

    async def lengthen_waiting(
        self, scope: Scope, *, before: timedelta, ttl: timedelta, limit: int
    ) -> Sequence[Change]:
        """Give at most `limit` waiting sessions with the TTL `before` a longer one.

        Counted from creation. A deadline never comes nearer by it.
        """
        ...
