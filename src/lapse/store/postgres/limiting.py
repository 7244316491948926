"""Quotas in PostgreSQL; see `lapse.quotas.rules`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from lapse.core.errors import StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import SHORTEST_RESTORE, Change, ChangeKind
from lapse.quotas.rules import EXCESS, SPAN, Bucket, Turn
from lapse.store.postgres import values as rows
from lapse.store.postgres.part import PostgresPart

_TRIES: Final = 10
"""The first one of a user makes their bucket; another is needed where it is forgotten at once."""


class PostgresLimiting(PostgresPart):
    """The part of the PostgreSQL store that is `Limiting`."""

    async def take_turn(self, buckets: Sequence[Bucket]) -> Turn:
        """Draw from all buckets, or from none."""
        call = await self._call()
        for _ in range(_TRIES):
            row = await call.first(
                "take_turn",
                buckets=[bucket.name for bucket in buckets],
                steps=[bucket.step for bucket in buckets],
                span=SPAN,
            )
            if row is not None:
                return Turn(row["wait"], row["bucket"])
        raise StoreUnavailableError("PostgreSQL: turns are forgotten faster than they are taken")

    async def forget_turns(self) -> None:
        """Forget full buckets."""
        await (await self._call()).run("forget_turns")

    async def expire_excess(
        self, key: SessionKey, *, site: str | None, per_user: int | None, per_site: int | None
    ) -> Sequence[Change]:
        """Expire what exceeds a quota."""
        call = await self._call(key)
        found = await call.run(
            "expire_excess",
            site=site,
            per_user=per_user,
            per_site=per_site,
            limit=EXCESS,
            shortest_restore=SHORTEST_RESTORE,
        )
        return [
            Change(ChangeKind.EXPIRED, row["now"], rows.lobby_record(row, call.rules))
            for row in found
        ]

    async def reuse_waiting(
        self, key: SessionKey, *, ttl: timedelta, metadata: Mapping[str, Any]
    ) -> tuple[SessionKey, Change] | None:
        """Give a session that is as good as new a fresh TTL."""
        call = await self._call(key)
        row = await call.first(
            "reuse_waiting",
            ttl=ttl,
            metadata=json.dumps(metadata),
            extensible=call.rules.extensible,
        )
        if row is None:
            return None
        record = rows.lobby_record(row, call.rules)
        return record.key, Change(ChangeKind.EXTENDED, row["now"], record)
