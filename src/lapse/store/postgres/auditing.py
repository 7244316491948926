"""The records of acts in PostgreSQL; see `lapse.audit.store`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lapse.audit.store import Act
from lapse.store.postgres.part import PostgresPart


def act(by: str | None, action: str, **detail: Any) -> dict[str, str | None]:
    """Return the parameters of the part of a statement that records an act."""
    return {"by": by, "action": action, "detail": json.dumps(detail)}


class PostgresAudited(PostgresPart):
    """The part of the PostgreSQL store that is `Audited`."""

    async def record_act(self, by: str, action: str, detail: Mapping[str, Any]) -> None:
        """Remember an act that is about no session in particular."""
        await (await self._call()).run("record_act", **act(by, action, **detail))

    async def acts(self, *, newest: int, before: int | None = None) -> Sequence[Act]:
        """Return the newest records."""
        found = await (await self._call()).run("acts", newest=newest, before_number=before)
        return [
            Act(
                number=row["number"],
                at=row["at"],
                by=row["principal"],
                action=row["action"],
                app_name=row["app_name"],
                session=row["session"],
                detail=json.loads(row["detail"]),
            )
            for row in found
        ]
