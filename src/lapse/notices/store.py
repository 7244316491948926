"""What the watcher reads from a store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, OnItsWay, Status
from lapse.store.lifecycles import read_lifecycle
from lapse.store.operation import Asking, Dialect, Part, Row, dialect, names_of, operation, rows
from lapse.store.records import shown_of

_OVER_AFTER: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Sessions at one moment of the store's clock; a session that is not in `records` is gone."""

    at: datetime
    records: Mapping[SessionKey, Lifecycle]


class NoticeStore(Part):
    """The records of watched sessions."""

    @operation(writes=False)
    def records(self, keys: Collection[SessionKey]) -> Asking[Snapshot]:
        """Return the records of many sessions from one read.

        Only a session that Lapse did not create needs another read, of its events.
        """
        watched = list(keys)
        # SQLite takes one JSON document. PostgreSQL takes arrays, whose length its planner knows.
        is_sqlite = (yield from dialect()) is Dialect.SQLITE
        params = {"keys": json.dumps(watched)} if is_sqlite else names_of(watched)
        read = yield from rows("records", **params)
        now, found = read[0]["now"], dict[SessionKey, Lifecycle]()
        for row in read:
            status, is_stored = row["status"], row["create_time"] is not None
            if is_stored and status != Status.USED:
                record = yield from read_lifecycle(watched[row["position"]], self.rules)
            elif (
                status is None
                or status == OnItsWay.DELETING
                or (status == Status.USED and not is_stored)
            ):
                continue
            else:
                record = replace(shown_of(row, self.rules), archives_at=_archives_at(row))
            if record is not None and self.rules.still_stands(record, now):
                found[record.key] = record
        return Snapshot(now, found)


def _archives_at(row: Row) -> datetime | None:
    """Return when a retention policy archives a session; None: not soon, or it was used since.

    A message writes nothing of this: what was announced before it does not count any more. Nor does
    what no sweep has done for an hour, because the policy may be in force no longer.
    """
    warned_at: datetime | None = row["warned_at"]
    is_exempt = row["pinned_at"] is not None or row["is_held"]
    if warned_at is None or is_exempt or row["status"] != Status.USED:
        return None
    uses = (row["first_message_at"], row["active_at"], row["last_event"])
    is_used_since = any(use is not None and use > warned_at for use in uses)
    check_at: datetime | None = row["check_at"]
    is_over = check_at is None or check_at < row["now"] - _OVER_AFTER
    return None if is_used_since or is_over else check_at
