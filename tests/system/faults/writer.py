"""A process that is there to be killed: it writes, and says so after each write returned.

    python writer.py URL ROUND

Each line it prints is one acknowledged fact: `waits SESSION DEADLINE` or `heard SESSION EVENT`.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "support"))

from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from lapse.store.records import EventRecord, NewEvent
from parts import Store, store_with_parts

WRITERS = 6
DATA = '{"author": "user", "content": {"parts": [{"text": "hi"}]}}'
TTLS = (timedelta(minutes=30), timedelta(milliseconds=1))


def acknowledge(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


async def write(store: Store, name: str) -> None:
    number = 0
    while True:
        key = SessionKey("app", "ann", f"{name}-{number}")
        ttl = TTLS[number % 2]
        created = await store.create(key, state=StateDelta(), ttl=ttl, metadata={})
        record, seen = created.changes[0].record, created.value.revision
        acknowledge("waits", key.session_id, record.expires_at.isoformat())
        number += 1
        if number % 3:
            for event_id in ("n", "m1", "m2", "m3"):
                stored = EventRecord(event_id, "e", datetime.now(UTC), DATA)
                event = NewEvent(stored, StateDelta(), is_message=event_id != "n")
                if event_id == "n" and ttl is TTLS[1]:
                    continue
                appended = await store.append(key, event, seen)
                acknowledge("heard", key.session_id, event_id)
                seen = appended.value.revision


async def sweep(store: Store) -> None:
    while True:
        await store.expire_due(3)
        await asyncio.sleep(0)


async def main(url: str, turn: str) -> None:
    store = store_with_parts(url)
    await store.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(sweep(store))
        for number in range(WRITERS):
            group.create_task(write(store, f"{turn}-{number}"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
