"""Fills a store with the sessions of some days, for pictures: a demo that many people opened."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Final

from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status
from lapse.overview.store import OverviewStore, Query
from lapse.retention.archive import ArchiveStore
from lapse.retention.exemptions import ExemptionStore
from lapse.retention.rules import Policy
from lapse.retention.store import RetentionStore
from lapse.store.database import Database
from lapse.store.records import EventRecord, NewEvent
from lapse.store.sessions import Sessions

_DAYS: Final = 4
_HOUR: Final = timedelta(hours=1)
_TTL: Final = timedelta(minutes=30)
_BATCH: Final = 500
_SPEAK: Final = 0.42
_COME_BACK: Final = 0.15


async def live(store: Database, *, seed: int = 7) -> None:
    """Have sessions created, spoken to, expired and brought back, up to now."""
    chance = random.Random(seed)
    now = datetime.now(UTC)
    silent: list[SessionKey] = []
    for back in range(_DAYS * 24, -1, -1):
        hour = now - back * _HOUR
        busy = 1 + math.sin((hour.hour - 8) / 24 * 2 * math.pi)
        for born in sorted(hour - chance.random() * _HOUR for _ in range(int(3 + 9 * busy))):
            name = f"{chance.getrandbits(128):032x}"
            key = SessionKey("concierge", f"guest-{chance.randrange(999)}", name)
            created = await Sessions(store.at(born)).create(
                key,
                state=StateDelta(),
                ttl=_TTL,
                metadata={"kind": "canonical-session", "page": chance.choice(("home", "menu"))},
            )
            spoken = born + timedelta(seconds=chance.lognormvariate(4.3, 1.3))
            if chance.random() < _SPEAK and spoken < min(now, born + _TTL):
                await Sessions(store.at(spoken)).append(
                    key, _message(name, spoken), created.value.revision
                )
            else:
                silent.append(key)
        await Sessions(store.at(hour)).expire_due(_BATCH)
        await Sessions(store.at(hour)).purge_due(_BATCH)
        if silent and chance.random() < _COME_BACK:
            await _come_back(store, silent.pop(0), hour, now)
        silent = silent[-20:]
    await OverviewStore(store).fold_counts()


async def keep(store: Database, policy: Policy) -> None:
    """Have a retention policy confirmed, old sessions archived, and some exempted."""
    found = await OverviewStore(store).find(Query(Status.USED, size=_BATCH))
    keys = [record.key for record in found.records]
    exempted = ExemptionStore(store)
    for key in keys[:3]:
        await exempted.pin(key, by="service:shop")
    await exempted.put_on_hold(keys[4], reason="case 2026/114: a disputed order", by="operator:ann")
    await exempted.put_on_hold(
        SessionKey("", "guest-7", ""), reason="case 2026/97", by="operator:ann"
    )
    await RetentionStore(store).confirm_retention(policy, by="operator:ann")
    await ArchiveStore(store).archive_sessions(keys, policy)
    await OverviewStore(store).fold_counts()


async def _come_back(store: Database, key: SessionKey, hour: datetime, now: datetime) -> None:
    """Let somebody speak to a session that has expired by then."""
    record = await Sessions(store.at(hour)).lifecycle(key)
    if record is None or record.expired_at is None or hour > now:
        return
    outcome = await Sessions(store.at(hour)).resurrect(key, cause=Cause.REQUEST)
    read = await Sessions(store.at(hour)).read(outcome.value.key)
    if read is not None:
        await Sessions(store.at(hour)).append(key, _message(key.session_id, hour), read.revision)


def _message(name: str, at: datetime) -> NewEvent:
    document = {
        "id": f"event-{name}",
        "invocation_id": "",
        "author": "user",
        "timestamp": at.timestamp(),
        "content": {"role": "user", "parts": [{"text": "A table for 4, please"}]},
    }
    record = EventRecord(f"event-{name}", "", at, json.dumps(document))
    return NewEvent(record, StateDelta(), is_message=True)
