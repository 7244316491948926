"""One process of several on one store: says it is ready, waits for a line, does its work.

    python replica.py URL sweep LIMIT NOW
    python replica.py URL speak EVENT_ID NOW SESSION...

It prints what it did as one JSON line: the expired sessions, or each message's changes.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))

from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from lapse.store.records import EventRecord, LastSeen, NewEvent
from parts import Store, store_with_parts

FAR = datetime(2040, 1, 1, tzinfo=UTC)
DATA = '{"author": "user", "content": {"parts": [{"text": "hi"}]}}'


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


async def sweep(store: Store, limit: str, now: str) -> list[str]:
    expired = []
    while (swept := await store.at(datetime.fromisoformat(now)).expire_due(int(limit))).value:
        expired += [change.record.key.session_id for change in swept.changes]
    return expired


async def speak(store: Store, event_id: str, now: str, *names: str) -> dict[str, list[str]]:
    moment = datetime.fromisoformat(now)
    heard = {}
    for name in names:
        record = EventRecord(event_id, "e", moment + timedelta(seconds=1), DATA)
        event = NewEvent(record, StateDelta(), is_message=True)
        key = SessionKey("app", "ann", name)
        appended = await store.at(moment).append(key, event, LastSeen(FAR, None))
        heard[name] = [change.kind for change in appended.changes]
    return heard


async def main(url: str, work: str, *arguments: str) -> None:
    store = store_with_parts(url)
    await store.open()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    say(json.dumps(await {"sweep": sweep, "speak": speak}[work](store, *arguments)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
