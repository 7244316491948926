"""What a store has observed of sessions, and the TTLs that were decided from it.

The transitions observe: the transaction of a first message, of a delete or of a purge writes one
observation. The operations here read observations, fold them, and keep the decisions.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from lapse.core.ages import EDGES
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import ChangeKind, Status
from lapse.store.lobby import all_counted
from lapse.store.operation import Asking, Part, first, only, operation, rows
from lapse.store.records import Changes, Result
from lapse.ttl.decision import Decision
from lapse.ttl.observed import MOST_PER_USER, Count, Outcome, Scope

_EDGES: Final = [edge // timedelta(microseconds=1) for edge in EDGES]
"""For PostgreSQL alone: SQLite's `age_bucket` is a function of Python, and knows them."""


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


class TtlStore(Part):
    """What was observed, and what was decided."""

    @operation(writes=False)
    def observed(self, *, since: date) -> Asking[Sequence[Count]]:
        """Return the counts of the sessions created on `since` (UTC) or later, folded or not.

        Of one user and day, the MOST_PER_USER created first count; the others with a first
        message are SURPLUS. WITHDRAWN, UNUSED and REFUSED come at their end.
        """
        found = yield from rows(
            "observed", first_day=since, edges=_EDGES, most_per_user=MOST_PER_USER
        )
        return [
            Count(
                Scope(row["app_name"], row["segment"]),
                row["day"],
                Outcome(row["outcome"]),
                row["bucket"],
                row["sessions"],
            )
            for row in found
        ]

    @operation(writes=False)
    def recent_first_messages(
        self, *, newest: int, reach: timedelta
    ) -> Asking[Sequence[FirstMessage]]:
        """Return of each scope the `newest` first messages that count, none older than `reach`."""
        found = yield from rows(
            "recent_first_messages", newest=newest, reach=reach, most_per_user=MOST_PER_USER
        )
        return [
            FirstMessage(
                Scope(row["app_name"], row["segment"]),
                row["observed_at"],
                row["observed_at"] - row["created_at"],
            )
            for row in found
        ]

    @operation()
    def fold_observations(
        self, *, before: datetime, segments: Collection[Scope], forgotten: datetime
    ) -> Asking[None]:
        """Turn the observations of sessions created before `before`, a midnight, into counts.

        Only `segments` are told apart from then on. Nothing is counted twice, whoever folds
        at the same time. Sessions purged before `forgotten` cannot be refused any more.
        """
        yield from rows(
            "fold_observations",
            before=before,
            segments=json.dumps([{"app": app, "segment": segment} for app, segment in segments]),
            edges=_EDGES,
            most_per_user=MOST_PER_USER,
            forgotten=forgotten,
        )

    @operation()
    def refuse(self, key: SessionKey) -> Asking[bool]:
        """Count a message to a session that was purged; True when it was, and was not counted."""
        return (yield from first("refuse", key)) is not None

    @operation(writes=False)
    def ttl_round(self) -> Asking[Round]:
        """Return how far the rounds are."""
        row = yield from only("ttl_round")
        return Round(row["now"], row["slot"], row["version"] or 0)

    @operation(writes=False)
    def ttl_decisions(self, *, newest: int = 1) -> Asking[Sequence[Decision]]:
        """Return the `newest` decisions of each scope, oldest first."""
        found = yield from rows("ttl_decisions", newest=newest)
        return [Decision.from_document(json.loads(row["decision"])) for row in found]

    @operation()
    def record_decisions(
        self, decisions: Sequence[Decision], *, slot: int, version: int
    ) -> Asking[bool]:
        """Record what a round has decided; False, and nothing, when another came first.

        `version` is that of the round that the decisions are based on.
        """
        documents = json.dumps([decision.as_document() for decision in decisions])
        row = yield from first("record_decisions", decisions=documents, slot=slot, version=version)
        return row is not None

    @operation()
    def lengthen_waiting(
        self, scope: Scope, *, before: timedelta, ttl: timedelta, limit: int
    ) -> Asking[Result[int]]:
        """Give at most `limit` waiting sessions with the TTL `before` a longer one.

        Counted from creation. A deadline never comes nearer by it. Returns how many it took.
        """
        found = yield from rows(
            "lengthen_waiting",
            SessionKey(scope.app_name, "", ""),
            segment=scope.segment,
            ttl_before=before,
            ttl=ttl,
            limit=limit,
        )
        yield from all_counted(found, ChangeKind.EXTENDED, Status.WAITING, Status.WAITING)
        return Result(len(found), Changes(found, self.rules, ChangeKind.EXTENDED) if found else ())
