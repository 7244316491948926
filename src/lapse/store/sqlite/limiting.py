"""Quotas in SQLite; see `lapse.quotas.rules`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import SHORTEST_RESTORE, Change, ChangeKind, Status
from lapse.quotas.rules import EXCESS, SPAN, Bucket, Turn
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.part import SqlitePart
from lapse.store.sqlite.transaction import Transaction

_SPAN: Final = rows.duration_micros(SPAN)


def take_turn(transaction: Transaction, buckets: Sequence[Bucket]) -> Turn:
    """Draw from all buckets, or from none; see `Limiting.take_turn`."""
    ahead = {}
    for bucket in buckets:
        row = transaction.first("read_turn", bucket=bucket.name)
        begin = transaction.now if row is None else max(row["full_at"], transaction.now)
        ahead[bucket.name] = begin + rows.duration_micros(bucket.step)
    worst = max(ahead, key=lambda name: ahead[name])
    wait = max(0, ahead[worst] - transaction.now - _SPAN)
    if not wait:
        for name, full_at in ahead.items():
            transaction.run("take_turn", bucket=name, full_at=full_at)
    return Turn(timedelta(microseconds=wait), worst)


def expire_excess(
    transaction: Transaction, site: str | None, per_user: int | None, per_site: int | None
) -> list[Change]:
    """Expire what exceeds a quota; see `Limiting.expire_excess`."""
    if not transaction.rules.horizon and transaction.first("brake") is not None:
        return []
    found = transaction.run(
        "expire_excess",
        site=site,
        per_user=per_user,
        per_site=per_site,
        limit=EXCESS,
        shortest_restore=rows.duration_micros(SHORTEST_RESTORE),
    ).fetchall()
    by_app = Counter(row["app_name"] for row in found)
    transaction.count_all(ChangeKind.EXPIRED, Status.WAITING, Status.EXPIRED, by_app)
    return [
        Change(
            ChangeKind.EXPIRED,
            transaction.moment,
            rows.lobby_record(row, transaction.rules, transaction.now),
        )
        for row in found
    ]


def reuse_waiting(
    transaction: Transaction, ttl: timedelta, metadata: Mapping[str, Any]
) -> tuple[SessionKey, Change] | None:
    """Give a session that is as good as new a fresh TTL; see `Limiting.reuse_waiting`."""
    row = transaction.first(
        "reuse_waiting",
        ttl=rows.duration_micros(ttl),
        metadata=json.dumps(metadata),
        extensible=rows.duration_micros(transaction.rules.extensible),
    )
    if row is None:
        return None
    transaction.count(ChangeKind.EXTENDED, Status.WAITING, Status.WAITING)
    record = rows.lobby_record(row, transaction.rules, transaction.now)
    return record.key, Change(ChangeKind.EXTENDED, transaction.moment, record)


class SqliteLimiting(SqlitePart):
    """The part of the SQLite store that is `Limiting`."""

    async def take_turn(self, buckets: Sequence[Bucket]) -> Turn:
        """Draw from all buckets, or from none."""
        return await self._write(lambda t: take_turn(t, buckets), flushed=False)

    async def forget_turns(self) -> None:
        """Forget full buckets."""
        await self._write(lambda t: t.run("forget_turns"), flushed=False)

    async def expire_excess(
        self, key: SessionKey, *, site: str | None, per_user: int | None, per_site: int | None
    ) -> Sequence[Change]:
        """Expire what exceeds a quota."""
        return await self._write(lambda t: expire_excess(t, site, per_user, per_site), key)

    async def reuse_waiting(
        self, key: SessionKey, *, ttl: timedelta, metadata: Mapping[str, Any]
    ) -> tuple[SessionKey, Change] | None:
        """Give a session that is as good as new a fresh TTL."""
        return await self._write(lambda t: reuse_waiting(t, ttl, metadata), key)
