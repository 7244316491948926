"""The audit log: who changed what by hand.

Records are only added: the store refuses to change, replace or delete one. If a change names who
asks for it (`by` of `Lobby.expire`, `extend`, `amend`, `resurrect`, of `Conversations.delete` and
of `AuditLog.append_recorded`), its record is written in the transaction of the change, so there is
never one without the other. A call that changes nothing writes no record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lapse.core.keys import SessionKey
from lapse.store.conversations import Conversations
from lapse.store.operation import NO_SESSION, Asking, Part, Row, operation, rows
from lapse.store.records import Appended, LastSeen, NewEvent, Result, Revision
from lapse.store.riders import audited


@dataclass(frozen=True, slots=True)
class Act:
    """An act of somebody, as it was recorded.

    Attributes:
        number: grows with every record.
        at: when it was done, by the store's clock.
        by: the principal, such as `ann`, `operator` or `cli:root@host`.
        action: what was done: a `ChangeKind`, or another act, such as `ran` or `swept`.
        app_name: the app of the session; None if the act was about no session.
        session: the first characters of the session's id; None if the act was about no session.
        digest: the digest of the session's key; None if the act was about no session, or was
            recorded before digests were.
        detail: more about the act; never the content of a session.
    """

    number: int
    at: datetime
    by: str
    action: str
    app_name: str | None = None
    session: str | None = None
    digest: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class AuditLog(Part):
    """The records of acts, to which records can only be added."""

    @operation()
    def record_act(
        self, by: str, action: str, detail: Mapping[str, Any], *, key: SessionKey = NO_SESSION
    ) -> Asking[None]:
        """Record an act that is no change in the store, or that is about no session.

        A repeat is recognised by the note of the first attempt.
        """
        yield from rows("record_act", key, **audited(key, by, action, **detail))

    @operation(together=True)
    def append_recorded(
        self,
        key: SessionKey,
        event: NewEvent,
        seen: Revision | LastSeen,
        *,
        by: str,
        action: str,
        detail: Mapping[str, Any],
    ) -> Asking[Result[Appended]]:
        """Append an event as `Conversations.append` does, and record who appended it.

        If the event is stored already, nothing is recorded. A repeat is recognised by the event's
        id.
        """
        result = yield from Conversations(self._database).appending(key, event, seen)
        if not result.value.repeated:
            yield from rows("record_act", key, **audited(key, by, action, **detail))
        return result

    @operation(writes=False)
    def acts(self, *, newest: int, before: int | None = None) -> Asking[Sequence[Act]]:
        """Return the `newest` records, newest first; with `before`, of those of a lower number."""
        return [_act(row) for row in (yield from rows("acts", newest=newest, before_number=before))]

    @operation(writes=False)
    def acts_on(self, key: SessionKey, *, newest: int) -> Asking[Sequence[Act]]:
        """Return the `newest` records of one session, newest first, also after its end."""
        return [_act(row) for row in (yield from rows("acts_on", digest=key.digest, newest=newest))]


def _act(row: Row) -> Act:
    return Act(
        number=row["number"],
        at=row["at"],
        by=row["principal"],
        action=row["action"],
        app_name=row["app_name"],
        session=row["session"],
        digest=row["digest"],
        detail=json.loads(row["detail"]),
    )
