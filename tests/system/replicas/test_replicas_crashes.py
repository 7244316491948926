"""The server crashes, or a replica does, under load, again and again."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from crashes import check
from watching import eventually, running, start

from history import History
from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from lapse.idempotency.rules import KeyRules
from lapse.runs.repeats import NOTHING_KNOWN
from parts import store_with_parts
from postgres import prepare, rows, run

pytestmark = pytest.mark.long

ROUNDS = 30
FACTS = 120


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
    assert len(replica.those("heard")) > ROUNDS * FACTS / 8
    await check(own_database_server.url, History.of(replica.facts))


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
    await check(store_url, History.of(facts))


async def test_a_crash_of_the_server_loses_no_key_and_no_run_that_has_begun(own_database_server):
    """Else the run goes on, stores its message, and a repeat of the request stores it again.

    Without its note nobody finds the run's events. Seen to fail with beginnings, and with notes,
    that are not flushed.
    """
    url = own_database_server.url
    prepare(url)
    # What is not flushed by a commit stays so.
    run(url, "ALTER SYSTEM SET wal_writer_delay = '10s'", "SELECT pg_reload_conf()")
    store = store_with_parts(url)
    session, other = (SessionKey("app", "ann", name) for name in ("s1", "s2"))
    for key in (session, other):
        await store.create(key, state=StateDelta(), ttl=timedelta(hours=1), metadata={})
    asked = KeyRules().request("key", session, "run", b"{}")
    begun = await store.begin_once(session, "r1", asked, max_per_user=9, prepared=NOTHING_KNOWN)
    await store.begin_run(other, "r2", max_per_user=9)
    await store.note_run("r2", "e-1", datetime(2026, 1, 1, tzinfo=UTC))
    await asyncio.to_thread(own_database_server.stop, "immediate")
    await asyncio.to_thread(own_database_server.start)
    known = await store.known(session, asked)
    assert known.run is not None
    assert (known.run.run_id, known.message_id) == ("r1", begun.message_id)
    noted = await store.find_run(other)
    assert (noted.run_id, noted.invocation_id) == ("r2", "e-1")
    await store.close()
