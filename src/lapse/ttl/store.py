"""The store's observations of sessions, and the TTL decisions made from them.

The transaction of a first message, of a delete or of a purge writes one observation. The
operations here read observations, fold them into counts, and keep the decisions.
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
from lapse.store.operation import Asking, Part, done_before, first, only, operation, rows
from lapse.store.records import Changes, Result
from lapse.store.riders import all_counted
from lapse.ttl.decision import Decision
from lapse.ttl.observed import MOST_PER_USER, Count, Outcome, Scope

_EDGES: Final = [edge // timedelta(microseconds=1) for edge in EDGES]
"""In microseconds, for PostgreSQL alone: SQLite calls the Python function `age_bucket`."""


@dataclass(frozen=True, slots=True)
class FirstMessage:
    """When the first message of one session came, and the age of the session then."""

    scope: Scope
    at: datetime
    age: timedelta


@dataclass(frozen=True, slots=True)
class Round:
    """The last round of decisions.

    Attributes:
        now: the store's time.
        slot: the hour of the last round, in hours since the epoch; None before the first.
        version: the number of rounds and window resets so far.
    """

    now: datetime
    slot: int | None
    version: int


class TtlStore(Part):
    """Observations of sessions, rounds and decisions."""

    @operation(writes=False)
    def observed(self, *, since: date) -> Asking[Sequence[Count]]:
        """Return the counts of sessions created on the day `since` (UTC) or later, folded or not.

        Of the sessions of one user and day that had a first message, the MOST_PER_USER created
        first count as USED or CONTROL, and the others as SURPLUS. Sessions without an outcome
        yet are not counted.
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
        self, *, newest: int, max_age: timedelta
    ) -> Asking[Sequence[FirstMessage]]:
        """Return the `newest` first messages of each app and segment, without the surplus.

        Messages that came longer than `max_age` ago are left out. The order is undefined.
        """
        found = yield from rows(
            "recent_first_messages", newest=newest, max_age=max_age, most_per_user=MOST_PER_USER
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
        """Turn the observations of sessions created before `before` (a midnight, UTC) into counts.

        The counts have no user ids, and only `segments` are counted separately. Several processes
        may fold at the same time: nothing is counted twice. Digests of sessions purged before
        `forgotten` are deleted; a message to one of these is no longer counted as REFUSED. A repeat
        folds what is not folded yet.
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
        """Count a message to a purged session as REFUSED, once for each session.

        Returns True if it was counted; False if the session was not purged lately or was counted. A
        repeat finds the session counted.
        """
        return (yield from first("refuse", key)) is not None

    @operation(writes=False)
    def ttl_round(self) -> Asking[Round]:
        """Return the last round, and the store's time."""
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
        """Record the decisions of a round and the round itself, all or nothing.

        Returns False and records nothing if another round was recorded since. `version` is the
        version of the round that the decisions are based on; `slot` is the hour of the new round. A
        repeat finds the version moved, and is recognised by the note of the first attempt.
        """
        documents = json.dumps([decision.as_document() for decision in decisions])
        answer = yield from rows(
            "record_decisions", decisions=documents, slot=slot, version=version
        )
        return bool(answer) or (yield from done_before(answer)) is not None

    @operation()
    def lengthen_waiting(
        self, scope: Scope, *, before: timedelta, ttl: timedelta, limit: int
    ) -> Asking[Result[int]]:
        """Give at most `limit` waiting sessions of a scope the longer `ttl` instead of `before`.

        The TTL counts from creation. A deadline never comes nearer. The value of the result is
        the number of sessions that were changed; call again while it equals `limit`. A repeat
        changes sessions that have the TTL `before` still.
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
