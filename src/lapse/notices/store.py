"""What the watcher reads from a store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Status
from lapse.store.lifecycles import read_lifecycle
from lapse.store.operation import Asking, Dialect, Part, dialect, names_of, operation, rows
from lapse.store.records import lifecycle_of


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
            elif status is None or (status == Status.USED and not is_stored):
                continue
            else:
                record = lifecycle_of(row, self.rules)
            if record is not None and self.rules.still_stands(record, now):
                found[record.key] = record
        return Snapshot(now, found)
