"""The server crashes, or a replica does, under load, again and again."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from watching import eventually, running, start

from lapse.core.feed import Feed
from lapse.sweep.sweeper import sweep_once
from parts import store_with_parts
from postgres import prepare, rows

pytestmark = pytest.mark.long

ROUNDS = 30
FACTS = 60
FAR = datetime(2100, 1, 1, tzinfo=UTC)

EVENTS = "SELECT session_id, array_agg(id ORDER BY timestamp, id) FROM events GROUP BY 1"
RECORDS = """
SELECT session_id, status, revision,
  (SELECT array_agg(e ->> 'id') FROM jsonb_array_elements(held_events) AS e)
FROM lapse_lobby
"""


async def check(url, facts):
    """Check each acknowledged fact, then sweep everything that ever falls due, and again."""
    waiting = {words[1] for words in facts if words[0] == "waits"}
    heard = defaultdict(list)
    for words in facts:
        if words[0] == "heard":
            heard[words[1]].append(words[2])
    used = {name for name, events in heard.items() if "m1" in events}
    before = check_rows(url, heard, used)
    assert waiting <= before.keys()

    store = store_with_parts(url)
    while (await sweep_once(store, Feed())).full:
        pass
    swept = [*(await store.at(FAR).expire_due(100_000)).changes]
    swept += (await store.at(FAR + timedelta(days=2)).purge_due(100_000)).changes
    gone = {change.record.key.session_id for change in swept}
    assert await store.time_to_next() is None
    await store.close()
    assert gone.isdisjoint(used)
    kept = {name for name, status in before.items() if status == "used"}
    after = check_rows(url, {name: heard[name] for name in kept}, used)
    assert set(after) == kept


def check_rows(url, heard, used):
    """Check that each event heard is stored once, and counted once; return every status."""
    stored = dict(rows(url, EVENTS))
    statuses = {}
    for name, status, revision, held in rows(url, RECORDS):
        statuses[name] = status
        events = stored.get(name, held or [])
        assert len(events) == len(set(events)) == revision
        # The last may have been stored without a word.
        assert events[: len(heard.get(name, []))] == heard.get(name, [])
        assert len(events) <= len(heard.get(name, [])) + 1
        assert (name in stored) == (status == "used")
    assert {name for name, events in heard.items() if events} <= statuses.keys()
    assert {statuses[name] for name in used} <= {"used"}
    return statuses


@pytest.mark.timeout(300)
async def test_no_acknowledged_message_is_lost_to_thirty_crashes_of_the_server(own_database_server):
    """What returned is durable, and what was repeated after a crash is stored once.

    Seen to fail with connections that say `synchronous_commit = off`, and with an append that
    does not know its own event again when it is repeated.
    """
    prepare(own_database_server.url)
    async with running(own_database_server.url, "serve") as replica:
        for _ in range(ROUNDS):
            await replica.more(FACTS)
            await asyncio.to_thread(own_database_server.stop, "immediate")
            await asyncio.to_thread(own_database_server.start)
        await replica.more(FACTS)
    assert len(replica.those("heard")) > ROUNDS * FACTS / 4
    await check(own_database_server.url, replica.facts)


@pytest.mark.timeout(300)
async def test_no_acknowledged_message_is_lost_to_thirty_kills_of_a_replica(store_url):
    """While one replica is killed, the next is at work on the same database.

    Seen to fail with a store that answers for a later message before its statement has run.
    """
    facts = []
    following = await start(store_url, "serve", 0)
    try:
        for turn in range(1, ROUNDS + 1):
            replica, following = following, await start(store_url, "serve", turn)
            try:
                await replica.more(FACTS)
            finally:
                await replica.kill()
            facts += replica.facts
    finally:
        await following.kill()
    facts += following.facts
    # A killed replica's last statements may still be running.
    busy = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'lapse' AND datname = $1"
    name = store_url.partition("@/")[2].partition("?")[0]
    await eventually(lambda: not rows(store_url, busy, name))
    await check(store_url, facts)
