"""What operators and metrics read of retention costs what is pinned, held and due."""

import json
import re
import sqlite3
from contextlib import closing
from datetime import timedelta

import asyncpg
import pytest

from lapse.store.operation import Dialect
from lapse.store.postgres.call import STATEMENTS
from lapse.store.statements import read_statements
from postgres import database

SESSIONS = 20_000
COLUMNS = """app_name, user_id, session_id, status, created_at, ttl, first_message_at, metadata,
update_time, check_at, pinned_at"""
FILLED_POSTGRES = f"""
INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
SELECT 'app', 'u' || n % 100, 's' || n, '{{}}', now(), now()
FROM generate_series(1, {SESSIONS}) AS n;
INSERT INTO lapse_lobby ({COLUMNS})
SELECT 'app', 'u' || n % 100, 's' || n, 'used', now(), '1 hour', now(), '{{}}', now(),
  now() + '1 day', CASE WHEN n < 9 THEN now() END
FROM generate_series(1, {SESSIONS}) AS n;
ANALYZE lapse_lobby
"""
FILLED_SQLITE = f"""
INSERT INTO lapse_lobby ({COLUMNS})
WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {SESSIONS})
SELECT 'app', 'u' || (n % 100), 's' || n, 'used', 1, 1, 1, '{{}}', '2026-01-01', 9e18,
  CASE WHEN n < 9 THEN 1 END FROM c;
"""
JUST_ARCHIVED = f"""
{FILLED_POSTGRES.partition("ANALYZE")[0]}
UPDATE lapse_lobby SET check_at = now() - interval '1 hour';
UPDATE lapse_lobby SET status = 'archived', archived_at = now(), restorable_until = now() + '1 day',
  check_at = now() + '1 day', state = '{{}}', held_events = '[]'
"""
OWED = """
INSERT INTO lapse_memory_outbox (app_name, user_id, session_id, event_ids, due_at)
SELECT app_name, user_id, session_id, '["e1"]', check_at FROM lapse_lobby
"""
PARAMETERS = {"now": None, "most": 100, "limit": 10, "lease": timedelta(minutes=1)}
RELEASED = [("app", "nobody", "s1"), ("app", "nobody", ""), ("", "nobody", "")]


@pytest.mark.parametrize("name", ["retention_levels", "pinned"])
async def test_no_statement_reads_every_session(store, store_url, name):
    """Seen to fail without the index of pinned sessions."""
    await store.retention_levels()
    if store_url.startswith("postgres"):
        plan = await plan_on_postgres(store_url, name)
        assert "Seq Scan on lapse_lobby" not in plan, plan
    elif store_url.startswith("sqlite:///") and ":memory:" not in store_url:
        plans = plans_on_sqlite(store_url, name)
        assert not [one for one in plans if re.fullmatch(r"SCAN (l|lapse_lobby)", one)], plans


@pytest.mark.parametrize("name", ["due_for_look", "purging", "retention_levels"])
async def test_a_sweep_after_a_large_archive_does_not_read_the_archive(name):
    """Seen to fail without an order: the planner expected many to be due, and read all."""
    with database() as url:
        connection = await asyncpg.connect(url)
        await connection.execute(JUST_ARCHIVED)
        statement = STATEMENTS[name]
        values = [PARAMETERS[parameter] for parameter in statement.names]
        await connection.execute(
            "VACUUM (ANALYZE) lapse_lobby"
        )  # as PostgreSQL does by itself before long
        plan = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}", *values
        )
        await connection.close()
    assert json.loads(plan)[0]["Plan"]["Shared Hit Blocks"] < 100, plan


@pytest.mark.parametrize("released", RELEASED)
async def test_a_release_of_a_hold_reads_no_sessions_of_other_users(store, store_url, released):
    """Be it of a session, of a user in an app or in all apps; with statistics and without.

    Seen to fail on SQLite without statistics, with the names alone compared.
    """
    await store.retention_levels()
    asked = dict(zip(("app_name", "user_id", "session_id"), released, strict=True))
    if store_url.startswith("postgres"):
        connection = await asyncpg.connect(store_url)
        await connection.execute(FILLED_POSTGRES)
        statement = STATEMENTS["look_soon"]
        values = [(PARAMETERS | asked)[name] for name in statement.names]
        plan = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}", *values
        )
        await connection.close()
        assert json.loads(plan)[0]["Plan"]["Shared Hit Blocks"] < 50, plan
    elif store_url.startswith("sqlite:///") and ":memory:" not in store_url:
        for counted in ("", "ANALYZE"):
            plans = plans_on_sqlite(store_url, "look_soon", counted, **asked)
            found = [one for one in plans if "lapse_lobby_used (app_name=? AND user_id=?" in one]
            assert len(found) == 1, plans
            assert not [one for one in plans if re.match("SCAN lapse|BLOOM", one)], plans


async def test_a_look_for_what_is_to_be_forgotten_reads_what_is_due(store, store_url):
    """Seen to fail without the index."""
    await store.retention_levels()
    if store_url.startswith("postgres"):
        plan = await plan_on_postgres(store_url, "take_memory", OWED)
        assert "Index Scan using lapse_memory_outbox_due" in plan, plan
    elif store_url.startswith("sqlite:///") and ":memory:" not in store_url:
        plans = plans_on_sqlite(store_url, "take_memory", OWED)
        assert [one for one in plans if "INDEX lapse_memory_outbox_due (due_at<?)" in one], plans


async def plan_on_postgres(url, name, more="SELECT 1"):
    connection = await asyncpg.connect(url)
    await connection.execute(FILLED_POSTGRES)
    await connection.execute(more)
    await connection.execute("ANALYZE lapse_memory_outbox")
    statement = STATEMENTS[name]
    values = [PARAMETERS[parameter] for parameter in statement.names]
    plan = await connection.fetch(f"EXPLAIN {statement.sql}", *values)
    await connection.close()
    return "\n".join(row[0] for row in plan)


def plans_on_sqlite(url, name, more="ANALYZE", **asked):
    with closing(sqlite3.connect(url.partition(":///")[2])) as connection:
        if not connection.execute("SELECT 1 FROM lapse_lobby").fetchone():
            connection.executescript(FILLED_SQLITE)
        connection.executescript(more)
        statement = read_statements(Dialect.SQLITE)[name]
        asked = dict.fromkeys(re.findall(r":(\w+)", statement), 1) | asked
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", asked)]
