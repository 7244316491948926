"""A user's sessions with their records: what a page shows as the list of somebody's chats."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lapse.core.documents import merge_state
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Rules, Status
from lapse.store.operation import Asking, Part, Row, key_of, operation, rows
from lapse.store.records import Revision, SessionRecord, shown_of

MOST_EXPIRED: Final = 500
"""At most this many expired sessions of a user are listed, the most recent ones."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A session without its events, and its record at the moment `at` of the store's clock."""

    session: SessionRecord
    lifecycle: Lifecycle
    at: datetime


class ListStore(Part):
    """Lists sessions together with their records."""

    @operation(writes=False)
    def list_with_records(
        self, app_name: str, user_id: str, statuses: Collection[Status] | None = None
    ) -> Asking[Sequence[Listed]]:
        """Return a user's sessions in ADK's order, from one snapshot.

        Args:
            app_name: the app.
            user_id: the user.
            statuses: which sessions, by the status that their records tell; None: those that ADK
                lists. Of expired ones only the MOST_EXPIRED most recent that can be restored.
        """
        found = yield from rows(
            "list_with_records",
            SessionKey(app_name, user_id, ""),
            statuses=None if statuses is None else [str(status) for status in statuses],
            most=MOST_EXPIRED,
        )
        return [Listed(_session_of(row), _record_of(row, self.rules), row["now"]) for row in found]


def _session_of(row: Row) -> SessionRecord:
    state, app_state, user_state = (
        json.loads(row[column] or "{}") for column in ("state", "app_state", "user_state")
    )
    revision = Revision(row["update_time"], row["revision"])
    return SessionRecord(key_of(row), merge_state(state, app_state, user_state), revision)


def _record_of(row: Row, rules: Rules) -> Lifecycle:
    if row["create_time"] is None or row["status"] == Status.USED:
        return shown_of(row, rules)
    return Lifecycle(  # Lapse did not create it
        key_of(row),
        Status(row["reads_as"]),
        created_at=row["create_time"],
        first_message_at=row["message_time"],
        metadata={},
        on_hold=bool(row["is_held"]),
    )
