-- Purging archived sessions whose time is over: a batch, or one that was taken for its hooks.

-- name: purge_archived
DELETE FROM lapse_lobby AS l
WHERE l.rowid IN (
    SELECT rowid FROM lapse_lobby AS l
    WHERE l.check_at <= :now AND l.status = 'archived' AND l.restorable_until <= :now
      AND l.pinned_at IS NULL AND NOT {is_held}
    ORDER BY l.check_at LIMIT :limit
  )
  AND l.status = 'archived' AND l.restorable_until <= :now AND l.pinned_at IS NULL
  AND NOT {is_held} AND NOT {is_braked}
RETURNING *;

-- name: take_to_purge
UPDATE lapse_lobby AS l SET check_at = :now + :purge_pause
WHERE l.rowid IN (
    SELECT rowid FROM lapse_lobby AS l
    WHERE l.check_at <= :now AND l.status = 'archived' AND l.restorable_until <= :now
      AND l.pinned_at IS NULL AND NOT {is_held}
    ORDER BY l.check_at LIMIT :limit
  )
  AND NOT {is_braked}
RETURNING *;

-- name: read_taken
SELECT a.content FROM lapse_archive AS a
JOIN lapse_lobby AS l
  ON l.app_name = a.app_name AND l.user_id = a.user_id AND l.session_id = a.session_id
WHERE a.app_name = :app_name AND a.user_id = :user_id AND a.session_id = :session_id
  AND l.status = 'archived' AND l.archived_at = :archived_at;

-- name: postpone_purge
UPDATE lapse_lobby SET check_at = :now + :purge_pause
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'archived' AND archived_at = :archived_at;

-- name: purge_taken
DELETE FROM lapse_lobby AS l
WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  AND l.status = 'archived' AND l.archived_at = :archived_at AND l.restorable_until <= :now
  AND l.pinned_at IS NULL AND NOT {is_held} AND NOT {is_braked}
RETURNING *;

-- name: purging
-- How many sessions are archived is a sum over all apps, which only a purge needs.
SELECT due,
  CASE WHEN due > 0 THEN (
    SELECT coalesce(sum(sessions), 0) FROM {levels} WHERE status = 'archived'
  ) ELSE 0 END AS archived,
  {is_braked} AS is_braked
FROM (
  SELECT count(*) AS due FROM (
    SELECT 1 FROM lapse_lobby AS l
    WHERE l.check_at <= :now AND l.status = 'archived' AND l.restorable_until <= :now
      AND l.pinned_at IS NULL AND NOT {is_held}
    ORDER BY l.check_at LIMIT :most
  )
);
