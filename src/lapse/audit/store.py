"""The audit log: who changed what by hand.

Records are only added: the store refuses to change or delete one. If a change names who asks for it
(`by` of `Lobby.expire`, `extend`, `amend`, `resurrect` and of `Conversations.delete`), its record
is written in the transaction of the change, so there is never one without the other. A call that
changes nothing writes no record.
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
        at: when it was done, by the store's clock.
        by: the principal, such as `ann`, `operator` or `cli:root@host`.
        action: what was done: a `ChangeKind`, or another act of operators (`swept`, `confirmed`).
        app_name: the app of the session; None if the act was about no session.
        session: the first characters of the session's id; None if the act was about no session.
        detail: more about the act; never the content of a session.
    """

    number: int
    at: datetime
    by: str
    action: str
    app_name: str | None = None
    session: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class AuditLog(Part):
    """The records of acts, to which records can only be added."""

    @operation()
    def record_act(self, by: str, action: str, detail: Mapping[str, Any]) -> Asking[None]:
        """Record an act that is about no session in particular."""
        yield from rows("record_act", **audited(by, action, **detail))

    @operation(writes=False)
    def acts(self, *, newest: int, before: int | None = None) -> Asking[Sequence[Act]]:
        """Return the `newest` records, newest first; with `before`, of those of a lower number."""
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
