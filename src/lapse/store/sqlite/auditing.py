"""The records of acts in SQLite; see `lapse.audit.store`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lapse.audit.store import Act
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.part import SqlitePart
from lapse.store.sqlite.transaction import Transaction


def record(transaction: Transaction, by: str | None, action: str, **detail: Any) -> None:
    """Remember in this transaction what was done to its session; nothing where nobody asked."""
    if by is not None:
        transaction.run(
            "record_act",
            by=by,
            action=action,
            session=transaction.key.short,
            detail=json.dumps(detail),
        )


def acts(transaction: Transaction, newest: int, before: int | None) -> list[Act]:
    """Return the newest records; see `Audited.acts`."""
    return [
        Act(
            number=row["number"],
            at=rows.from_micros(row["at"]),
            by=row["principal"],
            action=row["action"],
            app_name=row["app_name"],
            session=row["session"],
            detail=json.loads(row["detail"]),
        )
        for row in transaction.run("acts", newest=newest, before_number=before)
    ]


class SqliteAudited(SqlitePart):
    """The part of the SQLite store that is `Audited`."""

    async def record_act(self, by: str, action: str, detail: Mapping[str, Any]) -> None:
        """Remember an act that is about no session in particular."""
        await self._write(lambda t: record(t, by, action, **detail))

    async def acts(self, *, newest: int, before: int | None = None) -> Sequence[Act]:
        """Return the newest records."""
        return await self._read(lambda t: acts(t, newest, before))
