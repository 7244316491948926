"""A process that is there to be killed: it says what it will write, and what is written.

    python writer.py URL ROUND [early]

It prints lines of `history.History`. An `early` one is broken: it answers before it commits.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "support"))

from breaks import answer_early
from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from lapse.store.records import EventRecord, NewEvent
from parts import Store, store_with_parts

WRITERS = 6
DATA = '{"author": "user", "content": {"parts": [{"text": "hi"}]}}'
TTLS = (timedelta(minutes=30), timedelta(milliseconds=1))


def say(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


async def write(store: Store, name: str) -> None:
    number = 0
    while True:
        key = SessionKey("app", "ann", f"{name}-{number}")
        ttl = TTLS[number % 2]
        say("asks", key.session_id)
        created = await store.create(key, state=StateDelta(), ttl=ttl, metadata={})
        record, seen = created.changes[0].record, created.value.revision
        say("waits", key.session_id, str(micros(record.expires_at)))
        number += 1
        if number % 3:
            for event_id in ("n", "m1", "m2", "m3"):
                stored = EventRecord(event_id, "e", datetime.now(UTC), DATA)
                event = NewEvent(stored, StateDelta(), is_message=event_id != "n")
                if event_id == "n" and ttl is TTLS[1]:
                    continue
                say("asks", key.session_id, event_id)
                appended = await store.append(key, event, seen)
                say("heard", key.session_id, event_id)
                seen = appended.value.revision


async def sweep(store: Store) -> None:
    while True:
        await store.expire_due(3)
        await asyncio.sleep(0)


def micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


async def main(url: str, turn: str, broken: str = "") -> None:
    if broken == "early":
        answer_early()
    store = store_with_parts(url)
    await store.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(sweep(store))
        for number in range(WRITERS):
            group.create_task(write(store, f"{turn}-{number}"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
