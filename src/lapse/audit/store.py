"""Who changed what by hand.

Records are only ever added: the store refuses to change or delete one. Where a change is asked
for by somebody (`by` of `Lobby.expire`, `extend`, `amend`, `resurrect` and of
`Conversations.delete`), its record is written in the transaction of the change, so there is never
one without the other; a call that changes nothing leaves none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lapse.store.lobby import audited
from lapse.store.operation import Asking, Part, operation, rows


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody did.

    Attributes:
        number: grows with every record.
        at: by the store's clock.
        by: the principal, such as `ann`, `operator` or `cli:root@host`.
        action: what was done: a `ChangeKind`, or what else operators do (`swept`, `confirmed`).
        app_name: the app of the session; None where it was about none.
        session: the first characters of the session's id; None likewise.
        detail: what else is worth knowing; no content of a session.
    """

    number: int
    at: datetime
    by: str
    action: str
    app_name: str | None = None
    session: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class AuditLog(Part):
    """What is remembered of acts."""

    @operation()
    def record_act(self, by: str, action: str, detail: Mapping[str, Any]) -> Asking[None]:
        """Remember an act that is about no session in particular."""
        yield from rows("record_act", **audited(by, action, **detail))

    @operation(writes=False)
    def acts(self, *, newest: int, before: int | None = None) -> Asking[Sequence[Act]]:
        """Return the `newest` records, of those with a number below `before`; newest first."""
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
            for row in (yield from rows("acts", newest=newest, before_number=before))
        ]
