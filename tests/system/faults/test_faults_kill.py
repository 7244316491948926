"""A process that writes to an SQLite file is killed with no warning, again and again."""

import asyncio
import random
import sqlite3
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends import key
from lapse.core.lifecycle import Status
from lapse.store.records import EventWindow
from parts import store_with_parts

pytestmark = pytest.mark.long

WRITER = Path(__file__).with_name("writer.py")
CHAINS, ROUNDS = 2, 50
MOST_FACTS = 120
FAR = datetime(2100, 1, 1, tzinfo=UTC)


async def write_until_killed(url, turn, facts):
    """Run a writer, kill it once it has acknowledged so many facts, and return all it did."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, WRITER, url, str(turn), stdout=asyncio.subprocess.PIPE
    )
    lines = [await process.stdout.readline() for _ in range(facts)]
    process.kill()
    rest = await process.stdout.read()
    await process.wait()
    text = b"".join(lines) + rest
    return [line.split() for line in text.decode().splitlines()]


async def check(store, facts):
    """Check that every acknowledged fact holds, before and after sweeps of everything due."""
    deadlines = {name: deadline for word, name, deadline in facts if word == "waits"}
    heard = defaultdict(set)
    for word, name, event_id in facts:
        if word == "heard":
            heard[name].add(event_id)
    for name, deadline in deadlines.items():
        record = await store.lifecycle(key(name))
        assert record is not None
        if record.status is not Status.USED:
            assert record.expires_at.isoformat() == deadline
            assert not heard[name] - {"n"}
    swept = [await store.at(FAR).expire_due(10_000), await store.at(FAR).purge_due(10_000)]
    gone = {change.record.key.session_id for one in swept for change in one.changes}
    assert (await store.at(FAR + timedelta(days=2)).purge_due(10_000)).value >= 0
    for name, events in heard.items():
        if events - {"n"}:
            assert name not in gone
            found = await store.at(FAR).read(key(name), EventWindow())
            stored = [event.id for event in found.events]
            assert events <= set(stored)
            assert len(stored) == len(set(stored))
            assert (await store.at(FAR).lifecycle(key(name))).status is Status.USED
    assert await store.at(FAR + timedelta(days=3)).time_to_next() is None


def check_integrity(path):
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


@pytest.mark.timeout(300)
async def test_no_acknowledged_message_or_deadline_is_lost_to_a_hundred_kills(tmp_path):
    """What was acknowledged is durable, and nothing is half written.

    Seen to fail with a store that answers its callers before it commits.
    """

    async def chain(number):
        chance = random.Random(number)
        path = tmp_path / f"lapse{number}.db"
        for turn in range(ROUNDS):
            url = f"sqlite:///{path}"
            facts = await write_until_killed(url, turn, chance.randint(1, MOST_FACTS))
            store = store_with_parts(url)
            await store.open()
            await check(store, facts)
            await store.close()
            if turn % 10 == 9:
                check_integrity(path)

    async with asyncio.TaskGroup() as group:
        for number in range(CHAINS):
            group.create_task(chain(number))
