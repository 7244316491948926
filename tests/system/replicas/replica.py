"""One replica of several on one database; it prints lines of `history.History`, and two others.

    python replica.py URL (serve | talk | sweep) TURN [shift=SECONDS] [sleep=SECONDS] [OPTION…]

`serve` writes and sweeps at once, as a busy server does; `talk` creates sessions that last
for a second, speaks to half of them, and sweeps; `sweep` only sweeps. `shift` is how wrong
the host's clock is, `sleep` the sweeper's longest sleep; a `deaf` one hears no news of others. A
`shift` that `jumps` is another one whenever the clock is read, as far either way. Two
options break it: `host` has it go by the host's clock and not by the database's, `wrong` has its
sweeps not repeat their condition.

    clock SECONDS               the host's time when it began
    listening                   its sweeper has looked for the first time
"""

import asyncio
import contextlib
import datetime as dt
import itertools
import os
import random
import sys
import time
from pathlib import Path

import asyncpg  # noqa: F401 - in C it keeps the true datetime, and would miss it

OPTIONS = dict(option.partition("=")[::2] for option in sys.argv[4:])
SHIFT = float(OPTIONS.get("shift", 0))


def shift():
    """Return how wrong the host's clock is now."""
    return random.choice((-SHIFT, 0, SHIFT)) if "jumps" in OPTIONS else SHIFT


if SHIFT:
    # Before anything of ours is imported, so that nobody has kept the right clock.
    right = time.time

    class Shifted(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(right() + shift(), tz)

    time.time = lambda: right() + shift()
    time.time_ns = lambda: int((right() + shift()) * 1e9)
    dt.datetime = Shifted

sys.path.append(str(Path(__file__).parents[2] / "support"))

from backends import Clocked  # noqa: E402
from lapse.core.documents import StateDelta  # noqa: E402
from lapse.core.errors import StoreUnavailableError  # noqa: E402
from lapse.core.feed import Feed  # noqa: E402
from lapse.core.keys import SessionKey  # noqa: E402
from lapse.core.lifecycle import ChangeKind  # noqa: E402
from lapse.store.records import EventRecord, NewEvent  # noqa: E402
from lapse.sweep.sweeper import Sweeper  # noqa: E402
from parts import store_with_parts  # noqa: E402
from wrong_sweeps import sweep_wrongly  # noqa: E402

WRITERS = 6
DATA = '{"author": "user", "content": {"parts": [{"text": "hi"}]}}'
LONG, BRIEF, SECOND = (dt.timedelta(seconds=seconds) for seconds in (1800, 0.001, 1))


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def persist(call):
    """Do it until the store says that it is done: repeating is safe."""
    while True:
        try:
            return await call()
        except StoreUnavailableError:
            await asyncio.sleep(0.01)


async def create(store, name, ttl):
    key = SessionKey("app", "ann", name)
    say("asks", name)
    created = await store.create(key, state=StateDelta(), ttl=ttl, metadata={})
    say("waits", name)
    return created.value.revision


async def speak(store, name, event_id, seen):
    data = DATA if event_id.startswith("m") else '{"author": "user", "actions": {}}'
    record = EventRecord(event_id, "e", dt.datetime.now(dt.UTC), data)
    event = NewEvent(record, StateDelta(), is_message=event_id.startswith("m"))
    key = SessionKey("app", "ann", name)
    say("asks", name, event_id)
    appended = await persist(lambda: store.append(key, event, seen))
    say("heard", name, event_id)
    return appended.value.revision


async def write(store, name):
    for number in itertools.count():
        session = f"{name}-{number}"
        brief = number % 2
        try:
            seen = await create(store, session, BRIEF if brief else LONG)
        except StoreUnavailableError:
            await asyncio.sleep(0.01)
            continue
        if number % 3:
            for event_id in ("m1", "m2", "m3") if brief else ("n1", "n2", "m1", "m2"):
                seen = await speak(store, session, event_id, seen)


async def serve(store, turn):
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(write(store, f"{turn}-{number}"))


async def talk(store, turn):
    say("clock", dt.datetime.now(dt.UTC).timestamp())
    for number in range(20):
        name = f"{turn}-{number}"
        seen = await create(store, name, SECOND)
        if number % 2:
            await speak(store, name, "m1", seen)
    await asyncio.Event().wait()


async def sweep(store, turn):
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def deaf(_channel, _hear):
    yield


def tell(change):
    if change.kind is ChangeKind.EXPIRED:
        say("expired", change.record.key.session_id, change.lateness.total_seconds())


async def main(url, work, turn):
    store = store_with_parts(url)
    if "deaf" in OPTIONS:
        store.listen = deaf
    await store.open()
    if "wrong" in OPTIONS:
        sweep_wrongly()
    if "host" in OPTIONS:
        store = Clocked(store, lambda: dt.datetime.now(dt.UTC))
    feed = Feed()
    feed.subscribe(tell)
    heard = []

    def looked(report):
        if not heard:
            heard.append(say("listening"))

    longest = dt.timedelta(seconds=float(OPTIONS.get("sleep", 15)))
    async with Sweeper(store, feed, on_report=looked, longest_sleep=longest):
        await {"serve": serve, "sweep": sweep, "talk": talk}[work](store, turn)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
