-- The brake of the sweepers, the count of what is due, and the time of the last sweep.
--
-- Types of parameters and columns:
-- :braked_at, :braked_until, :swept_at moment
-- :jump, :confirmed duration

-- name: is_braked
-- A part of the statements that a brake holds.
EXISTS (SELECT 1 FROM lapse_brakes WHERE released_at IS NULL)

-- name: brake
SELECT reason, since AS braked_at, until AS braked_until, sessions AS held_back, jump
FROM lapse_brakes WHERE released_at IS NULL;

-- name: set_brake
-- A brake for the share is not set again while the release of the last brake counts as confirmed.
INSERT INTO lapse_brakes AS b (id, reason, since, until, sessions, jump)
VALUES (1, :reason, :braked_at, :braked_until, :sessions, :jump)
ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, since = excluded.since,
  until = excluded.until, sessions = excluded.sessions, jump = excluded.jump, released_at = NULL
WHERE (
  b.released_at IS NOT NULL
  OR excluded.reason = 'clock' AND (b.reason = 'share' OR b.until <= excluded.since)
)
AND NOT (
  excluded.reason = 'share'
  AND b.released_at <= excluded.since AND excluded.since < b.released_at + :confirmed
)
RETURNING id;

-- name: release_brake
UPDATE lapse_brakes SET released_at = :now WHERE released_at IS NULL AND since = :braked_at
RETURNING id;

-- name: dues
SELECT due.*, (SELECT coalesce(sum(sessions), 0) FROM {levels}) AS stored,
  b.reason, b.since AS braked_at, b.until AS braked_until, b.sessions AS held_back, b.jump
FROM {count_due} AS due
LEFT JOIN lapse_brakes AS b ON b.released_at IS NULL;

-- name: count_due
-- A part of `dues`.
SELECT
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'waiting' AND expires_at <= :now LIMIT :most
  )) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby AS l
    WHERE status = 'expired' AND restorable_until <= :now AND NOT {is_held} LIMIT :most
  )) AS purge;

-- name: mark_swept
INSERT INTO lapse_sweeps (id, swept_at) VALUES (1, :now)
ON CONFLICT (id) DO UPDATE SET swept_at = :now
RETURNING swept_at;

-- name: expire_backlog
-- Two statements: the first tells what the second does, in a row for each app. A row for each session
-- would cost more than its expiry. Nothing is written between the two, and the order of the backlog is
-- total, so both take the same sessions.
SELECT app_name, json_group_array(:now - expires_at) AS latenesses,
  json_group_array(json_array(user_id, session_id)) AS named
FROM {backlog} GROUP BY app_name;
UPDATE lapse_lobby
SET status = 'expired', expired_at = :now,
  restorable_until = {restorable_until}
WHERE rowid IN (SELECT row_id FROM {backlog}) AND status = 'waiting' AND expires_at <= :now;

-- name: backlog
-- A part of `expire_backlog`.
SELECT rowid AS row_id, app_name, user_id, session_id, expires_at FROM lapse_lobby AS l
WHERE status = 'waiting' AND expires_at <= :now AND first_message_at IS NULL
  AND (:horizon > 0 OR NOT {is_braked})
  AND NOT EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
  )
ORDER BY expires_at, rowid LIMIT :limit;
