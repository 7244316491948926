"""What keeps the creation of sessions within its quotas, on every replica."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from lapse.core.errors import StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change, ChangeKind, Status
from lapse.quotas.rules import EXCESS, SPAN, Bucket, Draw
from lapse.store.lobby import all_counted, counted
from lapse.store.operation import Asking, Part, first, operation, rows
from lapse.store.records import Result, change_of

_TRIES: Final = 10
"""The first creation of a user makes their bucket; another try is needed where it is forgotten
at once."""


class QuotaStore(Part):
    """The buckets of tokens, and the sessions that exceed a quota."""

    @operation(flushed=False)
    def draw(self, buckets: Sequence[Bucket]) -> Asking[Draw]:
        """Draw a token from each of the buckets, or, where one is empty, from none.

        What was drawn in the last SPAN may be forgotten in a crash.
        """
        for _ in range(_TRIES):
            row = yield from first(
                "draw",
                buckets=[bucket.name for bucket in buckets],
                steps=[bucket.step for bucket in buckets],
                span=SPAN,
            )
            if row is not None:
                return Draw(row["wait"], row["bucket"])
        raise StoreUnavailableError("buckets are forgotten faster than they are drawn from")

    @operation(flushed=False)
    def forget_buckets(self) -> Asking[None]:
        """Forget the buckets that are full again."""
        yield from rows("forget_buckets")

    @operation()
    def expire_excess(
        self, key: SessionKey, *, site: str | None, per_user: int | None, per_site: int | None
    ) -> Asking[Result[int]]:
        """Expire waiting sessions of the key's user, in all apps, and of a site, over so many.

        The newest stay, counted from their creation, their last extension or their last event,
        whichever came last. What goes is restorable for SHORTEST_RESTORE: not for as long as
        what expires at its deadline, or whoever creates without end would fill the store.
        EXCESS at a time. Returns how many. Nothing while the rules are not enforced, or where
        nothing is restorable and a brake is set.
        """
        found = yield from rows(
            "expire_excess", key, site=site, per_user=per_user, per_site=per_site, limit=EXCESS
        )
        yield from all_counted(found, ChangeKind.EXPIRED, Status.WAITING, Status.EXPIRED)
        changes = [change_of(row, self.rules, ChangeKind.EXPIRED) for row in found]
        return Result(len(changes), changes)

    @operation()
    def reuse_waiting(
        self, key: SessionKey, *, ttl: timedelta, metadata: Mapping[str, Any]
    ) -> Asking[Result[SessionKey | None]]:
        """Give the newest session that is as good as a new one a fresh TTL, and return its key.

        Of the key's user in its app: waiting, with no event and no state of its own, with
        exactly this metadata, and young enough for the whole TTL. None without one.
        """
        row = yield from first("reuse_waiting", key, ttl=ttl, metadata=json.dumps(metadata))
        if row is None:
            return Result(None)
        yield from counted(key, ChangeKind.EXTENDED, Status.WAITING, Status.WAITING)
        change: Change = change_of(row, self.rules, ChangeKind.EXTENDED)
        return Result(change.record.key, (change,))
