"""The operations of quotas: the limits hold for all replicas together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from lapse.core.errors import StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change, ChangeKind, Status
from lapse.core.messages import UsedBy
from lapse.quotas.rules import EXCESS, SPAN, Bucket, Draw
from lapse.store.lifecycles import read_lifecycle
from lapse.store.operation import Asking, Part, done_before, first, operation, rows
from lapse.store.records import Result, change_of
from lapse.store.riders import all_counted, counted

_TRIES: Final = 10
"""A user's first creation makes their bucket and tries again; more tries are needed only if the
bucket is deleted at once."""


class QuotaStore(Part):
    """The buckets of tokens, and the waiting sessions over a quota."""

    @operation(flushed=False)
    def draw(self, buckets: Sequence[Bucket]) -> Asking[Draw]:
        """Draw a token from each of the buckets, or from none if one is empty.

        A crash may undo the draws of the last SPAN. A repeat is recognised by its mark on one of
        the buckets; if others have drawn from all of them since, it draws once more.
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
        raise StoreUnavailableError(
            "the buckets of a rate limit are deleted faster than made; try again"
        )

    @operation(flushed=False)
    def forget_buckets(self) -> Asking[None]:
        """Delete the buckets that are full again; a bucket without a row is full.

        A repeat deletes what is full by then.
        """
        yield from rows("forget_buckets")

    @operation()
    def expire_excess(
        self, key: SessionKey, *, site: str | None, per_user: int | None, per_site: int | None
    ) -> Asking[Result[int]]:
        """Expire the waiting sessions over a quota, of the key's user in all apps and of a site.

        The key's session has just come to wait, and stays. So do the newest, counted from their
        creation, their last extension or their last event, whichever came last. The others are
        restorable for SHORTEST_RESTORE only: if they were restorable for the whole horizon, a
        client that creates without end would fill the store. At most EXCESS expire at a time. The
        value is their number. It does nothing while the rules are not enforced, or while a brake is
        set and nothing is restorable. A repeat expires what still exceeds a quota.
        """
        found = yield from rows(
            "expire_excess", key, site=site, per_user=per_user, per_site=per_site, limit=EXCESS
        )
        yield from all_counted(found, ChangeKind.EXPIRED, Status.WAITING, Status.EXPIRED)
        changes = [change_of(row, self.rules, ChangeKind.EXPIRED) for row in found]
        return Result(len(changes), changes)

    @operation()
    def reuse_waiting(
        self,
        key: SessionKey,
        *,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        used_by: UsedBy = UsedBy.ANYONE,
    ) -> Asking[Result[SessionKey | None]]:
        """Restart the TTL of the newest session that is as good as a new one; return its key.

        Such a session is of the key's user and app, is waiting, has no event and no state of its
        own, has exactly this metadata and this rule of use, and is young enough for the whole TTL.
        The value is None if there is none. A repeat is recognised by the note of the first attempt,
        which names the session.
        """
        answer = yield from rows(
            "reuse_waiting", key, ttl=ttl, metadata=json.dumps(metadata), used_by=used_by
        )
        if answer:
            yield from counted(key, ChangeKind.EXTENDED, Status.WAITING, Status.WAITING)
            change = change_of(answer[0], self.rules, ChangeKind.EXTENDED)
            return Result(change.record.key, (change,))
        note = yield from done_before(answer)
        if note is None:
            return Result(None)
        reused = key._replace(session_id=note["session_id"])
        record = yield from read_lifecycle(reused, self.rules)
        if record is None or record.status is not Status.WAITING:
            return Result(None)
        return Result(reused, (Change(ChangeKind.EXTENDED, note["at"], record),))
