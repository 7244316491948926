"""Reading many sessions at once from PostgreSQL, and news of changes among replicas."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Status
from lapse.notices.store import Snapshot
from lapse.store.postgres import values as rows
from lapse.store.postgres.call import Call

CHANNEL: Final = "lapse_changes"

_MOST: Final = 400
"""Sessions in one NOTIFY: its payload is limited to 8000 bytes."""


async def records(call: Call, keys: Collection[SessionKey]) -> Snapshot:
    """Return the records of many sessions; see `Watchable.records`."""
    asked = list(keys)
    read = await call.run(
        "records",
        app_names=[key.app_name for key in asked],
        user_ids=[key.user_id for key in asked],
        session_ids=[key.session_id for key in asked],
    )
    found = dict[SessionKey, Lifecycle]()
    for row in read:
        if row["position"] is None:
            continue
        key, is_stored = asked[row["position"] - 1], row["create_time"] is not None
        if is_stored and row["status"] != Status.USED:
            record = await replace(call, key=key).lifecycle()
        elif row["status"] is None:
            continue
        else:
            record = rows.lobby_record(row, call.rules)
        if record is not None and call.rules.still_stands(record, row["now"]):
            found[key] = record
    return Snapshot(read[0]["now"], found)


async def announce(call: Call, keys: Collection[SessionKey], sender: str) -> None:
    """Tell other replicas which sessions changed; see `Watchable.announce`.

    `sender` stands first, for a replica need not hear what it said itself.
    """
    digests = [key.digest for key in keys]
    for start in range(0, len(digests), _MOST):
        payload = ",".join([sender, *digests[start : start + _MOST]])
        await call.run("announce", payload=payload)


def hearing(heard: Callable[[Collection[str]], None], own: str) -> Callable[[str], None]:
    """Return what reads a payload of the channel and passes on what others announce."""

    def hear(payload: str) -> None:
        sender, *digests = payload.split(",")
        if sender != own:
            heard(digests)

    return hear
