"""What a PostgreSQL database holds, to compare two of them."""

import asyncpg

COLUMNS = """
SELECT table_name, string_agg(format('%I::text', column_name), ', ' ORDER BY ordinal_position)
FROM information_schema.columns
WHERE table_schema = 'public'
  AND table_name NOT IN ('lapse_schema', 'lapse_attempts', 'lapse_counts', 'lapse_locks', $1)
  AND NOT (table_name = 'lapse_audit' AND column_name = 'number')
  AND NOT (table_name = 'lapse_ttl_decisions' AND column_name = 'number')
  AND NOT (table_name = 'lapse_turns' AND column_name = 'attempt')
  AND NOT (table_name = 'lapse_webhook_outbox' AND column_name IN ('id', 'event'))
  AND NOT (table_name = 'lapse_memory_outbox' AND column_name = 'id')
  AND NOT (table_name = 'lapse_webhook_dead' AND column_name = 'event')
  AND NOT (table_name IN ('app_states', 'user_states') AND column_name = 'update_time')
GROUP BY table_name
"""
COUNTS = """
SELECT app_name, greatest(at, '2029-01-01'), kind, was, became, sum(sessions) FROM lapse_counts
GROUP BY 1, 2, 3, 4, 5
"""
"""A trigger counts by the database's own clock, and not by the test's."""


async def contents(url, besides=""):
    """Return all that a database holds, without what differs between two equal histories."""
    connection = await asyncpg.connect(url)
    try:
        found = {"lapse_counts": await connection.fetch(COUNTS)}
        for table, columns in await connection.fetch(COLUMNS, besides):
            found[table] = await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY 1, 2")
        return {table: sorted(map(tuple, some), key=repr) for table, some in found.items()}
    finally:
        await connection.close()
