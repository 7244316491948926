-- Purging archived sessions whose time is over: a batch, or one that was taken for its hooks.

-- name: purge_archived
-- Takes rows as `purge_due` does, for the same reasons.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT l.ctid FROM lapse_lobby AS l
  WHERE l.check_at > '-infinity' AND l.check_at <= (SELECT now FROM clock) AND l.status = 'archived'
    AND l.restorable_until <= (SELECT now FROM clock) AND l.pinned_at IS NULL
    AND NOT {is_held} AND NOT {is_braked}
  ORDER BY l.check_at
  LIMIT :limit
  FOR UPDATE OF l SKIP LOCKED
),
ended AS (
  DELETE FROM lapse_lobby AS l
  USING due, clock
  WHERE l.ctid = due.ctid AND l.status = 'archived' AND l.restorable_until <= now
    AND l.pinned_at IS NULL
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'purged' AS kind, 'archived' AS was, '' AS became, now FROM ended
),
counted AS {count_changes},
gone AS {drop_archives},
owed AS {owe_artifacts},
told AS {tell_purged}
SELECT * FROM ended;

-- name: take_to_purge
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT l.ctid FROM lapse_lobby AS l
  WHERE l.check_at > '-infinity' AND l.check_at <= (SELECT now FROM clock) AND l.status = 'archived'
    AND l.restorable_until <= (SELECT now FROM clock) AND l.pinned_at IS NULL
    AND NOT {is_held} AND NOT {is_braked}
  ORDER BY l.check_at
  LIMIT :limit
  FOR UPDATE OF l SKIP LOCKED
)
UPDATE lapse_lobby AS l SET check_at = now + :purge_pause
FROM due, clock
WHERE l.ctid = due.ctid AND l.status = 'archived' AND l.check_at <= now
RETURNING l.*, now;

-- name: read_taken
SELECT a.content FROM lapse_archive AS a
JOIN lapse_lobby AS l
  ON l.app_name = a.app_name AND l.user_id = a.user_id AND l.session_id = a.session_id
WHERE a.app_name = :app_name AND a.user_id = :user_id AND a.session_id = :session_id
  AND l.status = 'archived' AND l.archived_at = :archived_at;

-- name: postpone_purge
UPDATE lapse_lobby SET check_at = coalesce(:now, clock_timestamp()) + :purge_pause
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'archived' AND archived_at = :archived_at;

-- name: purge_taken
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
ended AS (
  DELETE FROM lapse_lobby AS l
  USING clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.status = 'archived' AND l.archived_at = :archived_at AND l.restorable_until <= now
    AND l.pinned_at IS NULL AND NOT {is_held} AND NOT {is_braked}
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'purged' AS kind, 'archived' AS was, '' AS became, now FROM ended
),
counted AS {count_changes},
gone AS {drop_archives},
owed AS {owe_artifacts},
told AS {tell_purged}
SELECT * FROM ended;

-- name: drop_archives
-- A part of the purges.
DELETE FROM lapse_archive AS a USING ended AS e
WHERE a.app_name = e.app_name AND a.user_id = e.user_id AND a.session_id = e.session_id;

-- name: tell_purged
-- A part of the purges.
INSERT INTO lapse_webhook_outbox
  (kind, app_name, user_id, session_id, at, created_at, amount, due_at)
SELECT 'session.purged', app_name, user_id, session_id, now, created_at, resurrections, now
FROM ended
WHERE EXISTS (SELECT 1 FROM lapse_webhooks)

-- name: purging
-- How many sessions are archived is a sum over all apps, which only a purge needs.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT count(*) AS due FROM (
    SELECT 1 FROM lapse_lobby AS l
    WHERE l.check_at > '-infinity' AND l.check_at <= (SELECT now FROM clock) AND l.status = 'archived'
      AND l.restorable_until <= (SELECT now FROM clock)
      AND l.pinned_at IS NULL AND NOT {is_held}
    ORDER BY l.check_at LIMIT :most
  ) AS due
)
SELECT now, due,
  CASE WHEN due > 0 THEN (
    SELECT coalesce(sum(sessions), 0)::bigint FROM {levels} AS levels WHERE status = 'archived'
  ) ELSE 0 END AS archived,
  {is_braked} AS is_braked
FROM clock, due;
