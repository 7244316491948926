"""Reading many sessions at once from SQLite."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Status
from lapse.notices.store import Snapshot
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.transaction import Transaction


def records(transaction: Transaction, keys: Collection[SessionKey]) -> Snapshot:
    """Return the records of many sessions; see `Watchable.records`."""
    asked = list(keys)
    found = dict[SessionKey, Lifecycle]()
    for row in transaction.run("records", keys=json.dumps(asked)):
        key, is_stored = asked[row["position"]], row["create_time"] is not None
        if is_stored and row["status"] != Status.USED:
            record = replace(transaction, key=key).lifecycle()
        elif row["status"] is None or (row["status"] == Status.USED and not is_stored):
            continue
        else:
            record = rows.lobby_record(row, transaction.rules, transaction.now)
        if record is not None and transaction.rules.still_stands(record, transaction.moment):
            found[key] = record
    return Snapshot(transaction.moment, found)
