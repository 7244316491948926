-- What is asked of a store that nobody has opened, of whatever version.

-- name: indexes
-- An index whose concurrent creation failed is there, costs each write, and helps no read.
SELECT c.relname AS name, i.indisvalid AS valid
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE pg_table_is_visible(i.indrelid);

-- name: inspect_sessions
SELECT clock.now,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'waiting' AND expires_at <= clock.now LIMIT :most
  ) AS due) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby
    WHERE status = 'expired' AND restorable_until <= clock.now LIMIT :most
  ) AS due) AS purge,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby
    WHERE status = 'expired' AND first_message_at IS NOT NULL LIMIT :most
  ) AS wrong) AS used_but_expired
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock;
