-- What is asked of a store that nobody has opened, of whatever version.

-- name: indexes
SELECT name, true AS valid FROM sqlite_master WHERE type = 'index';

-- name: inspect_sessions
SELECT
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'waiting' AND expires_at <= :now LIMIT :most
  )) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'expired' AND restorable_until <= :now LIMIT :most
  )) AS purge,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'expired' AND first_message_at IS NOT NULL LIMIT :most
  )) AS used_but_expired;
