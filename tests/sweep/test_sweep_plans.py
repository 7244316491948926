"""PostgreSQL plans a sweep's statements once, and not for each sweep."""

import asyncpg

from lapse.core.feed import Feed
from lapse.store import store_from_url
from lapse.store.options import ConnectionOptions
from lapse.sweep.sweeper import sweep_once
from postgres import database

SESSIONS = 10_000
AS_IF = 100
"""PostgreSQL is told that each page has so many times as many rows: a million."""

FILLED = f"""
SET session_replication_role = replica;
INSERT INTO lapse_lobby (app_name, user_id, session_id, status, created_at, ttl, expires_at,
  restorable_until, metadata, state, held_events, update_time)
SELECT 'app', 'u' || n % 1000, n, CASE WHEN n % 2 = 0 THEN 'waiting' ELSE 'expired' END,
  now(), '1 day', now() + '1 day', now() + '2 days', '{{}}', '{{}}', '[]', now()
FROM generate_series(1, {SESSIONS}) AS n;
ANALYZE lapse_lobby;
UPDATE pg_class SET reltuples = reltuples * {AS_IF} WHERE oid = 'lapse_lobby'::regclass
"""
PLANNED = """
SELECT substr(statement, 1, 400), generic_plans, custom_plans FROM pg_prepared_statements
WHERE statement LIKE 'WITH clock%'
"""


async def test_the_plans_of_sweeps_are_kept_beside_many_sessions():
    """Seen to fail without the lower bound of the deadlines: each sweep is planned.

    PostgreSQL plans the first five runs, and then keeps one plan unless that seems to cost more.
    """
    with database() as url:
        connection = await asyncpg.connect(url)
        await connection.execute(FILLED)
        await connection.close()
        store = store_from_url(url, options=ConnectionOptions(pool_size=1))
        for _ in range(12):
            await sweep_once(store, Feed())
        async with store._connections.lent() as connection:
            planned = await connection.fetch(PLANNED)
        await store.close()
    assert len(planned) == 3
    for statement, generic, custom in planned:
        assert generic >= 7, f"{custom} plans of {statement}"
