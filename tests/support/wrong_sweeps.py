"""Sweeps on PostgreSQL that do not repeat their condition once they have waited for a row."""

from lapse.store.postgres import call
from lapse.store.postgres.wording import TYPES
from lapse.store.statements import Positional

KEY = "(l.app_name, l.user_id, l.session_id)"

WRONG_EXPIRE = f"""
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
UPDATE lapse_lobby AS l
SET status = 'expired', expired_at = now,
  restorable_until = greatest(l.created_at + :horizon, now + :shortest_restore)
FROM clock
WHERE {KEY} IN (
  SELECT app_name, user_id, session_id FROM lapse_lobby, clock
  WHERE status = 'waiting' AND expires_at <= now
  ORDER BY expires_at LIMIT :limit
)
RETURNING l.*, now
"""
WRONG_BACKLOG = f"""
WITH done AS ({WRONG_EXPIRE})
SELECT app_name, now, json_agg(0)::text AS latenesses, '[]' AS named
FROM done GROUP BY app_name, now
"""
WRONG_PURGE = f"""
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
DELETE FROM lapse_lobby AS l
USING clock
WHERE {KEY} IN (
  SELECT app_name, user_id, session_id FROM lapse_lobby, clock
  WHERE status = 'expired' AND restorable_until <= now
  ORDER BY restorable_until LIMIT :limit
)
RETURNING l.*, now
"""
CHECKS = """
SELECT format('ALTER TABLE lapse_lobby DROP CONSTRAINT %I', conname)
FROM pg_constraint WHERE conrelid = 'lapse_lobby'::regclass AND contype = 'c'
"""
"""Names the constraints that would stop such a sweep."""


def sweep_wrongly():
    """Break this process's sweeps: they do not repeat their condition, and take their time."""
    slow = WRONG_EXPIRE.replace("FROM clock\n", "FROM clock, (SELECT pg_sleep(0.02)) AS late\n", 1)
    call.STATEMENTS["expire_due"] = Positional.of(slow, TYPES)
