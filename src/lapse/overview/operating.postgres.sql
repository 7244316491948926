-- What operators look at: counts, levels, and the brake of the sweepers.
--
-- Types of parameters:
-- :sessions bigint
-- :confirmed, :fine, :jump interval
-- :braked_at, :braked_until timestamptz
-- :reason varchar

-- name: count_changes
-- A part of every transition: it counts the rows of its table `changes`. It stands right behind
-- what changes the sessions, for parts are carried out from the last to the first: so a counter's
-- lock is the last to be taken. By shard, so that connections rarely wait for each other's.
INSERT INTO lapse_counts AS c (app_name, at, kind, was, became, shard, sessions)
SELECT app_name, date_bin('5 minutes', now, 'epoch') AS at, kind, was, became,
  pg_backend_pid() % 32, count(*)
FROM changes GROUP BY app_name, date_bin('5 minutes', now, 'epoch'), kind, was, became
ORDER BY app_name, at, kind, was, became
ON CONFLICT (app_name, at, kind, was, became, shard)
DO UPDATE SET sessions = c.sessions + excluded.sessions

-- name: is_braked
-- A part of other statements.
SELECT EXISTS (SELECT 1 FROM lapse_brakes WHERE released_at IS NULL)

-- name: tallies
-- A part of other statements: the levels, and what was counted since they were last brought up to
-- date.
SELECT app_name, status, sum(sessions)::bigint AS sessions FROM (
  SELECT app_name, status, sessions FROM lapse_levels
  UNION ALL SELECT app_name, became, sessions FROM lapse_counts
  UNION ALL SELECT app_name, was, -sessions FROM lapse_counts
) AS counted
WHERE status <> '' GROUP BY app_name, status HAVING sum(sessions) <> 0
ORDER BY app_name, status

-- name: overview
-- One statement is one snapshot. The lists come as arrays, a column each.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
levels AS (
  SELECT array_agg(app_name) AS level_apps, array_agg(status) AS level_statuses,
    array_agg(sessions) AS levels
  FROM {tallies} AS levels
),
counts AS (
  SELECT array_agg(app_name) AS count_apps, array_agg(kind) AS count_kinds,
    array_agg(extract(epoch FROM at)::bigint) AS count_seconds, array_agg(sessions) AS counts
  FROM (
    SELECT app_name, kind, at, sum(sessions)::bigint AS sessions FROM (
      SELECT app_name, kind, at, sessions FROM lapse_counted
      UNION ALL SELECT app_name, kind, at, sessions FROM lapse_counts WHERE kind <> ''
    ) AS counted
    -- Not the clock's table: of a time that the planner knows it knows how little is later.
    WHERE at > coalesce(:now, statement_timestamp()) - :reach GROUP BY app_name, kind, at
    ORDER BY at, app_name, kind
  ) AS sorted
)
SELECT now, levels.*, counts.*,
  (SELECT expires_at FROM lapse_lobby WHERE status = 'waiting' ORDER BY expires_at LIMIT 1)
    AS next_expiry,
  (SELECT restorable_until FROM lapse_lobby WHERE status = 'expired'
   ORDER BY restorable_until LIMIT 1) AS next_purge,
  (SELECT swept_at FROM lapse_sweeps) AS swept_at, b.*
FROM clock CROSS JOIN levels CROSS JOIN counts
LEFT JOIN lapse_brakes AS b ON b.released_at IS NULL;

-- name: dues
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
SELECT now,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby
    WHERE status = 'waiting' AND expires_at <= (SELECT now FROM clock) LIMIT :most
  ) AS due) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby
    WHERE status = 'expired' AND restorable_until <= (SELECT now FROM clock) LIMIT :most
  ) AS due) AS purge,
  (SELECT coalesce(sum(sessions), 0)::bigint FROM {tallies} AS levels) AS stored, b.*
FROM clock LEFT JOIN lapse_brakes AS b ON b.released_at IS NULL;

-- name: fold_counts
-- What is deleted is what is counted, whoever else folds at the same time. A counter that somebody
-- is at work with is left for the next time.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
closed AS (
  SELECT ctid FROM lapse_counts
  WHERE at < date_bin('5 minutes', (SELECT now FROM clock), 'epoch')
  FOR UPDATE SKIP LOCKED
),
gone AS (
  DELETE FROM lapse_counts WHERE ctid = ANY (ARRAY(SELECT ctid FROM closed)) RETURNING *
),
levels AS (
  INSERT INTO lapse_levels AS l (app_name, status, sessions)
  SELECT app_name, status, sum(sessions) FROM (
    SELECT app_name, became AS status, sessions FROM gone
    UNION ALL SELECT app_name, was, -sessions FROM gone
  ) AS moved
  WHERE status <> '' GROUP BY app_name, status ORDER BY app_name, status
  ON CONFLICT (app_name, status) DO UPDATE SET sessions = l.sessions + excluded.sessions
)
INSERT INTO lapse_counted AS d (at, app_name, kind, sessions)
SELECT at, app_name, kind, sum(sessions) FROM gone
WHERE kind <> '' GROUP BY at, app_name, kind ORDER BY at, app_name, kind
ON CONFLICT (at, app_name, kind) DO UPDATE SET sessions = d.sessions + excluded.sessions;

-- name: fold_hours
-- A bucket that begins with its hour is where the hour's numbers gather.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
old AS (
  SELECT ctid FROM lapse_counted
  WHERE at < date_bin('1 hour', (SELECT now FROM clock) - :fine, 'epoch')
    AND at <> date_bin('1 hour', at, 'epoch')
    OR at < (SELECT now FROM clock) - :kept
  FOR UPDATE SKIP LOCKED
),
gone AS (
  DELETE FROM lapse_counted WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING *
)
INSERT INTO lapse_counted AS d (at, app_name, kind, sessions)
SELECT date_bin('1 hour', at, 'epoch') AS hour, app_name, kind, sum(sessions)
FROM gone, clock WHERE at >= now - :kept GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (at, app_name, kind) DO UPDATE SET sessions = d.sessions + excluded.sessions;

-- name: lock_levels
-- First of the three statements of a recount: nobody folds until it has ended.
LOCK TABLE lapse_levels IN SHARE ROW EXCLUSIVE MODE;

-- name: delete_levels
DELETE FROM lapse_levels;

-- name: recount
-- The records and what is counted of them, in one snapshot: both are written in one transaction.
INSERT INTO lapse_levels (app_name, status, sessions)
SELECT app_name, status, sum(sessions) FROM (
  SELECT app_name, status, count(*) AS sessions FROM lapse_lobby GROUP BY app_name, status
  UNION ALL SELECT app_name, became, -sessions FROM lapse_counts
  UNION ALL SELECT app_name, was, sessions FROM lapse_counts
) AS counted
WHERE status <> '' GROUP BY app_name, status;

-- name: mark_swept
INSERT INTO lapse_sweeps (id, swept_at) VALUES (1, coalesce(:now, clock_timestamp()))
ON CONFLICT (id) DO UPDATE SET swept_at = excluded.swept_at
RETURNING swept_at;

-- name: brake
SELECT * FROM lapse_brakes WHERE released_at IS NULL;

-- name: set_brake
-- What was let go of is not held again by its share of the whole within the time it is confirmed.
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
UPDATE lapse_brakes SET released_at = coalesce(:now, clock_timestamp())
WHERE released_at IS NULL AND since = :braked_at
RETURNING id;

-- name: count
-- No-op: what SQLite does here rides in the statements of the transitions.
