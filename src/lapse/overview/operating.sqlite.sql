-- What operators look at: counts, levels, and the brake of the sweepers.

-- name: count
-- A part of every transition, in its transaction.
INSERT INTO lapse_counts (app_name, at, kind, was, became, sessions)
VALUES (:app_name, :now / 300000000 * 300000000, :kind, :was, :became, :sessions)
ON CONFLICT (app_name, at, kind, was, became) DO UPDATE SET sessions = sessions + excluded.sessions;

-- name: is_braked
-- A part of other statements.
EXISTS (SELECT 1 FROM lapse_brakes WHERE released_at IS NULL)

-- name: tallies
-- The levels, and what was counted since they were last brought up to date.
SELECT app_name, status, sum(sessions) AS sessions FROM (
  SELECT app_name, status, sessions FROM lapse_levels
  UNION ALL SELECT app_name, became, sessions FROM lapse_counts
  UNION ALL SELECT app_name, was, -sessions FROM lapse_counts
)
WHERE status <> '' GROUP BY app_name, status HAVING sum(sessions) <> 0
ORDER BY app_name, status;

-- name: counts
SELECT app_name, kind, at, sum(sessions) AS sessions FROM (
  SELECT app_name, kind, at, sessions FROM lapse_counted WHERE at > :counted_after
  UNION ALL
  SELECT app_name, kind, at, sessions FROM lapse_counts WHERE at > :counted_after AND kind <> ''
)
GROUP BY app_name, kind, at ORDER BY at, app_name, kind;

-- name: moments
SELECT
  (SELECT expires_at FROM lapse_lobby WHERE status = 'waiting' ORDER BY expires_at LIMIT 1)
    AS next_expiry,
  (SELECT restorable_until FROM lapse_lobby WHERE status = 'expired'
   ORDER BY restorable_until LIMIT 1) AS next_purge,
  (SELECT swept_at FROM lapse_sweeps) AS swept_at;

-- name: count_due
SELECT
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'waiting' AND expires_at <= :now LIMIT :most
  )) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'expired' AND restorable_until <= :now LIMIT :most
  )) AS purge;

-- name: fold_levels
-- The first of four statements of one transaction, which move what stands before :closed.
INSERT INTO lapse_levels (app_name, status, sessions)
SELECT app_name, status, sum(sessions) FROM (
  SELECT app_name, became AS status, sessions FROM lapse_counts WHERE at < :closed
  UNION ALL SELECT app_name, was, -sessions FROM lapse_counts WHERE at < :closed
)
WHERE status <> '' GROUP BY app_name, status
ON CONFLICT (app_name, status) DO UPDATE SET sessions = sessions + excluded.sessions;

-- name: fold_counts
INSERT INTO lapse_counted (at, app_name, kind, sessions)
SELECT at, app_name, kind, sum(sessions) FROM lapse_counts
WHERE at < :closed AND kind <> '' GROUP BY at, app_name, kind
ON CONFLICT (at, app_name, kind) DO UPDATE SET sessions = sessions + excluded.sessions;

-- name: delete_folded_counts
DELETE FROM lapse_counts WHERE at < :closed;

-- name: fold_hours
-- A bucket that begins with its hour is where the hour's numbers gather.
INSERT INTO lapse_counted (at, app_name, kind, sessions)
SELECT at / 3600000000 * 3600000000, app_name, kind, sum(sessions) FROM lapse_counted
WHERE at < :hourly_before AND at % 3600000000 <> 0 GROUP BY 1, 2, 3
ON CONFLICT (at, app_name, kind) DO UPDATE SET sessions = sessions + excluded.sessions;

-- name: delete_folded_hours
DELETE FROM lapse_counted
WHERE at < :hourly_before AND at % 3600000000 <> 0 OR at < :forgotten;

-- name: delete_levels
-- The first of two statements of one transaction, which count every record again.
DELETE FROM lapse_levels;

-- name: recount
INSERT INTO lapse_levels (app_name, status, sessions)
SELECT app_name, status, sum(sessions) FROM (
  SELECT app_name, status, count(*) AS sessions FROM lapse_lobby GROUP BY app_name, status
  UNION ALL SELECT app_name, became, -sessions FROM lapse_counts
  UNION ALL SELECT app_name, was, sessions FROM lapse_counts
)
WHERE status <> '' GROUP BY app_name, status;

-- name: mark_swept
INSERT INTO lapse_sweeps (id, swept_at) VALUES (1, :now)
ON CONFLICT (id) DO UPDATE SET swept_at = :now;

-- name: brake
SELECT * FROM lapse_brakes WHERE released_at IS NULL;

-- name: set_brake
-- What was let go of is not held again by its share of the whole within the time it is confirmed.
INSERT INTO lapse_brakes AS b (id, reason, since, until, sessions, jump)
VALUES (1, :reason, :since, :until, :sessions, :jump)
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
UPDATE lapse_brakes SET released_at = :now WHERE released_at IS NULL AND since = :since
RETURNING id;
