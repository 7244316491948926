"""The outbox of the webhook, on every store: what is written into it, and who takes it."""

import asyncio
import re
import sqlite3
from contextlib import closing
from datetime import timedelta

import asyncpg
import pytest

from backends import DUE, HOUR, T0, TICK, TTL, create, key, message
from lapse.core.lifecycle import Cause
from lapse.store.operation import Dialect
from lapse.store.postgres.call import STATEMENTS
from lapse.store.statements import read_statements
from lapse.sweep.rules import Brake, BrakeReason
from lapse.webhooks.rules import KEPT, LEASE, EventKind

EVENTS = 50_000
FILLED_POSTGRES = f"""\
INSERT INTO lapse_webhook_outbox (kind, at, due_at)
SELECT 'session.expired', now() - n * interval '1 s', now() + n * interval '1 s'
FROM generate_series(1, {EVENTS}) AS n;
INSERT INTO lapse_webhook_dead (event, kind, app_name, at, attempts, given_up_at)
SELECT n, 'session.expired', '', now(), 1, now() - n * interval '1 s'
FROM generate_series(1, {EVENTS}) AS n;
ANALYZE lapse_webhook_outbox, lapse_webhook_dead
"""
NUMBERS = f"WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {EVENTS})"
FILLED_SQLITE = f"""\
INSERT INTO lapse_webhook_outbox (kind, at, due_at)
{NUMBERS} SELECT 'session.expired', -n, n FROM c;
INSERT INTO lapse_webhook_dead (event, kind, app_name, at, attempts, given_up_at)
{NUMBERS} SELECT n, 'session.expired', '', 0, 1, -n FROM c;
ANALYZE
"""
PARAMETERS = {
    "now": None,
    "limit": 16,
    "lease": LEASE,
    "longest": HOUR,
    "kept": KEPT,
    "remembered": timedelta(days=30),
    "most": 10_000,
}
BRAKE = Brake(BrakeReason.SHARE, T0, T0 + HOUR, sessions=7)


async def taken(store, now=DUE + HOUR, limit=100):
    return sorted(await store.at(now).take_webhooks(limit), key=lambda event: event.number)


async def announced(open_store, **rules):
    store = await open_store(**rules)
    await store.at(T0).announce_webhook()
    return store


async def test_without_a_webhook_nothing_is_written(store):
    await create(store)
    await store.at(DUE).expire_due(10)
    await store.at(DUE).resurrect(key(), cause=Cause.REQUEST)
    await store.set_brake(BRAKE)
    assert await taken(store) == []


@pytest.mark.parametrize("way", ["one by one", "as a backlog", "by hand"])
async def test_an_expiry_is_an_event(open_store, way):
    """Seen to fail with the trigger on `expires_at` in place of `status`."""
    store = await announced(open_store)
    await create(store)
    match way:
        case "one by one":
            await store.at(DUE).expire_due(10)
        case "as a backlog":
            await store.at(DUE).expire_backlog(10)
        case "by hand":
            await store.at(DUE - TICK).expire(key())
    (event,) = await taken(store)
    moment = DUE - TICK if way == "by hand" else DUE
    assert (event.kind, event.key, event.at) == (EventKind.EXPIRED, key(), moment)
    assert (event.created_at, event.happens) == (T0, T0 + timedelta(hours=24))
    assert event.amount == 0


async def test_a_session_that_nothing_can_restore_is_an_event_too(open_store):
    store = await announced(open_store, horizon=timedelta(0))
    await create(store)
    await store.at(DUE).expire_due(10)
    await store.at(DUE).purge_due(10)
    (event,) = await taken(store)
    assert (event.kind, event.happens) == (EventKind.EXPIRED, DUE)


@pytest.mark.parametrize("swept", [True, False])
@pytest.mark.parametrize("cause", ["request", "message"])
async def test_a_resurrection_is_an_event(open_store, cause, swept):
    """Whether a sweep has come by or not. Seen to fail with `OLD.status = 'expired'` asked, too."""
    store = await announced(open_store)
    revision = await create(store)
    later = DUE + HOUR
    if swept:
        await store.at(DUE).expire_due(10)
    if cause == "request":
        await store.at(later).resurrect(key(), cause=Cause.REQUEST)
    else:
        await store.at(later).append(key(), message(at=later), revision)
    *before, event = await taken(store, later)
    assert [one.kind for one in before] == [EventKind.EXPIRED] * swept
    assert (event.kind, event.key, event.at) == (EventKind.RESURRECTED, key(), later)
    assert (event.created_at, event.amount) == (T0, 1)
    assert event.happens == (later + TTL if cause == "request" else None)


async def test_only_these_changes_are_events(open_store):
    store = await announced(open_store)
    revision = await create(store)
    await store.at(T0).extend(key())
    await store.at(T0).amend(key(), metadata={"a": 1}, ttl=HOUR)
    await store.at(T0).resurrect(key(), cause=Cause.REQUEST)
    await store.at(T0).append(key(), message(), revision)
    await create(store, "s2")
    await store.at(T0).delete(key("s2"))
    assert await taken(store) == []


async def test_a_brake_is_an_event_each_time_it_is_set(open_store):
    """Seen to fail without the trigger for a brake that is set again."""
    store = await announced(open_store)
    assert await store.at(T0).set_brake(BRAKE)
    assert not await store.at(T0).set_brake(BRAKE)
    await store.at(T0 + HOUR).release_brake(since=T0)
    again = Brake(BrakeReason.CLOCK, T0 + 3 * HOUR, T0 + 4 * HOUR, jump=HOUR)
    assert await store.at(T0 + 3 * HOUR).set_brake(again)
    found = await taken(store, T0 + 4 * HOUR)
    assert len(found) == 2, found
    first, second = found
    assert (first.kind, first.reason, first.at, first.amount) == ("brake.set", "share", T0, 7)
    assert first.happens == T0 + HOUR
    assert (second.reason, second.at, second.happens) == ("clock", again.since, again.until)


async def test_a_failed_change_leaves_no_event(open_store):
    store = await announced(open_store)
    await create(store)
    with pytest.raises(Exception, match="s2"):
        await store.at(DUE).resurrect(key("s2"), cause=Cause.REQUEST)
    assert await taken(store) == []


async def test_an_event_is_taken_by_one_and_again_after_growing_pauses(open_store):
    """Seen to fail with an attempt that leaves `due_at` as it is."""
    store = await announced(open_store)
    for number in range(20):
        await create(store, f"s{number}")
    await store.at(DUE).expire_due(100)
    one, other = await asyncio.gather(
        store.at(DUE).take_webhooks(12), store.at(DUE).take_webhooks(12)
    )
    numbers = [event.number for event in [*one, *other]]
    assert len(numbers) == len(set(numbers)) == 20
    assert await taken(store, DUE) == []
    assert await taken(store, DUE + LEASE - TICK) == []
    again = await taken(store, DUE + LEASE)
    assert {event.attempts for event in again} == {2}
    assert {event.event for event in again} == {event.event for event in [*one, *other]}
    assert await taken(store, DUE + LEASE + 2 * LEASE - TICK) == []
    await store.settle_webhooks([event.number for event in again[:19]])
    (last,) = await taken(store, DUE + 3 * LEASE)
    assert (last.number, last.attempts) == (again[19].number, 3)


async def test_what_was_not_delivered_in_three_days_is_given_up_and_told(open_store):
    store = await announced(open_store)
    await create(store)
    await store.at(DUE).expire_due(10)
    levels = await store.at(DUE + HOUR).webhook_levels()
    assert (levels.undelivered, levels.oldest, levels.given_up) == (1, HOUR, 0)
    await store.at(DUE + KEPT - TICK).announce_webhook()
    assert await store.at(DUE + KEPT - TICK).maintain_webhooks() == 0
    assert await store.at(DUE + KEPT).maintain_webhooks() == 1
    levels = await store.at(DUE + KEPT).webhook_levels()
    assert (levels.undelivered, levels.oldest, levels.given_up) == (0, timedelta(0), 1)
    await store.at(DUE + timedelta(days=33)).maintain_webhooks()
    assert (await store.webhook_levels()).given_up == 0


async def test_once_no_server_has_a_webhook_any_more_nothing_is_written(open_store):
    """Seen to fail with maintenance that leaves the triggers."""
    store = await announced(open_store)
    silent = T0 + KEPT + TICK
    await store.at(silent).maintain_webhooks()
    await create(store)
    await store.at(DUE).expire_due(10)
    assert await taken(store, silent) == []
    await store.at(silent).announce_webhook()
    await store.at(DUE).resurrect(key(), cause=Cause.REQUEST)
    assert [event.kind for event in await taken(store, silent)] == [EventKind.RESURRECTED]


@pytest.mark.parametrize(
    "name",
    ["take_webhooks", "give_up_webhooks", "forget_dead_webhooks", "webhook_levels"],
)
async def test_no_statement_reads_more_of_the_outbox_than_it_needs(store, reopen, store_url, name):
    """With many events, by indexes that need no sort.

    Seen to fail without the index by `at` and the one by `given_up_at`.
    """
    await store.webhook_levels()
    if store_url.startswith("postgres"):
        plan = await plan_on_postgres(store_url, name)
        # Those that are counted are read up to a LIMIT.
        assert plan.count("Seq Scan on lapse_webhook") == 2 * (name == "webhook_levels"), plan
        assert "Sort  (" not in plan.replace("Incremental Sort", ""), plan
    else:
        plans = plans_on_sqlite(store_url, name)
        assert not [one for one in plans if re.fullmatch(r"SCAN lapse_webhook_\w+", one)], plans
        assert not [one for one in plans if "TEMP B-TREE FOR ORDER BY" in one], plans


async def plan_on_postgres(url, name):
    connection = await asyncpg.connect(url)
    await connection.execute(FILLED_POSTGRES)
    statement = STATEMENTS[name]
    values = [PARAMETERS[parameter] for parameter in statement.names]
    plan = await connection.fetch(f"EXPLAIN {statement.sql}", *values)
    await connection.close()
    return "\n".join(row[0] for row in plan)


def plans_on_sqlite(url, name):
    with closing(sqlite3.connect(url.partition(":///")[2])) as connection:
        connection.executescript(FILLED_SQLITE)
        return [
            row[3]
            for statement in read_statements(Dialect.SQLITE)[name].split(";")
            for row in connection.execute(
                f"EXPLAIN QUERY PLAN {statement}",
                dict.fromkeys(re.findall(r":(\w+)", statement), 1),
            )
        ]
