-- Counts of changes by app, kind and time, and levels: the number of sessions by app and status.
--
-- Types of parameters:
-- :fine interval

-- name: count_changes
-- A part of every transition, which counts the rows of the transition's table `changes`. It stands
-- right behind the part that changes the sessions: PostgreSQL runs such parts from the last to the
-- first, so the lock on a counter is taken last and held shortest. Counters have shards, so that
-- connections rarely wait for each other.
INSERT INTO lapse_counts AS c (app_name, at, kind, was, became, shard, sessions)
SELECT app_name, date_bin('5 minutes', now, 'epoch') AS at, kind, was, became,
  pg_backend_pid() % 32, count(*)
FROM changes GROUP BY app_name, date_bin('5 minutes', now, 'epoch'), kind, was, became
ORDER BY app_name, at, kind, was, became
ON CONFLICT (app_name, at, kind, was, became, shard)
DO UPDATE SET sessions = c.sessions + excluded.sessions

-- name: levels
-- A part of other statements: the stored levels, plus the changes that were counted since these
-- were brought up to date.
SELECT app_name, status, sum(sessions)::bigint AS sessions FROM (
  SELECT app_name, status, sessions FROM lapse_levels
  UNION ALL SELECT app_name, became, sessions FROM lapse_counts
  UNION ALL SELECT app_name, was, -sessions FROM lapse_counts
) AS counted
WHERE status <> '' GROUP BY app_name, status HAVING sum(sessions) <> 0
ORDER BY app_name, status

-- name: agent_only
-- A part of other statements: the waiting sessions in which only the agent spoke.
SELECT app_name, count(*) AS sessions FROM lapse_lobby
WHERE agent_spoke AND status = 'waiting' GROUP BY app_name

-- name: overview
-- One statement is one snapshot. Each column of the three lists is returned as an array.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
levels AS (
  SELECT array_agg(app_name) AS level_apps, array_agg(status) AS level_statuses,
    array_agg(sessions) AS levels
  FROM {levels} AS levels
),
counts AS (
  SELECT array_agg(app_name) AS count_apps, array_agg(kind) AS count_kinds,
    array_agg(extract(epoch FROM at)::bigint) AS count_seconds, array_agg(sessions) AS counts
  FROM (
    SELECT app_name, kind, at, sum(sessions)::bigint AS sessions FROM (
      SELECT app_name, kind, at, sessions FROM lapse_counted
      UNION ALL SELECT app_name, kind, at, sessions FROM lapse_counts WHERE kind <> ''
    ) AS counted
    -- Not `now` of `clock`: the planner has to know the time to estimate how few rows are later.
    WHERE at > coalesce(:now, statement_timestamp()) - :max_age GROUP BY app_name, kind, at
    ORDER BY at, app_name, kind
  ) AS sorted
)
SELECT now, levels.*, counts.*,
  (SELECT array_agg(app_name ORDER BY app_name) FROM {agent_only} AS a) AS agent_only_apps,
  (SELECT array_agg(sessions ORDER BY app_name) FROM {agent_only} AS a) AS agent_only,
  (SELECT expires_at FROM lapse_lobby WHERE status = 'waiting' ORDER BY expires_at LIMIT 1)
    AS next_expiry,
  (SELECT restorable_until FROM lapse_lobby AS l WHERE status = 'expired' AND NOT {is_held}
   ORDER BY restorable_until LIMIT 1) AS next_purge,
  (SELECT swept_at FROM lapse_sweeps) AS swept_at,
  (SELECT count(*) FROM (
    SELECT app_name FROM lapse_lobby
    WHERE status = 'expired' AND first_message_at IS NOT NULL ORDER BY app_name LIMIT 10000
  ) AS wrong) AS used_but_expired,
  b.reason, b.since AS braked_at, b.until AS braked_until, b.sessions AS held_back, b.jump
FROM clock CROSS JOIN levels CROSS JOIN counts
LEFT JOIN lapse_brakes AS b ON b.released_at IS NULL;

-- name: overview_of_all
-- As `overview`, with all apps together, whose name is empty.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
levels AS (
  SELECT array_agg(''::varchar) AS level_apps, array_agg(status) AS level_statuses,
    array_agg(sessions) AS levels
  FROM (
    SELECT status, sum(sessions)::bigint AS sessions FROM (
      SELECT status, sessions FROM lapse_levels
      UNION ALL SELECT became, sessions FROM lapse_counts
      UNION ALL SELECT was, -sessions FROM lapse_counts
    ) AS counted
    WHERE status <> '' GROUP BY status HAVING sum(sessions) <> 0 ORDER BY status
  ) AS levels
),
counts AS (
  SELECT array_agg(''::varchar) AS count_apps, array_agg(kind) AS count_kinds,
    array_agg(extract(epoch FROM at)::bigint) AS count_seconds, array_agg(sessions) AS counts
  FROM (
    SELECT kind, at, sum(sessions)::bigint AS sessions FROM (
      SELECT kind, at, sessions FROM lapse_counted
      UNION ALL SELECT kind, at, sessions FROM lapse_counts WHERE kind <> ''
    ) AS counted
    WHERE at > coalesce(:now, statement_timestamp()) - :max_age GROUP BY kind, at
    ORDER BY at, kind
  ) AS sorted
)
SELECT now, levels.*, counts.*,
  ARRAY[''::varchar] AS agent_only_apps,
  ARRAY[(SELECT count(*) FROM lapse_lobby WHERE agent_spoke AND status = 'waiting')] AS agent_only,
  (SELECT expires_at FROM lapse_lobby WHERE status = 'waiting' ORDER BY expires_at LIMIT 1)
    AS next_expiry,
  (SELECT restorable_until FROM lapse_lobby AS l WHERE status = 'expired' AND NOT {is_held}
   ORDER BY restorable_until LIMIT 1) AS next_purge,
  (SELECT swept_at FROM lapse_sweeps) AS swept_at,
  (SELECT count(*) FROM (
    SELECT app_name FROM lapse_lobby
    WHERE status = 'expired' AND first_message_at IS NOT NULL ORDER BY app_name LIMIT 10000
  ) AS wrong) AS used_but_expired,
  b.reason, b.since AS braked_at, b.until AS braked_until, b.sessions AS held_back, b.jump
FROM clock CROSS JOIN levels CROSS JOIN counts
LEFT JOIN lapse_brakes AS b ON b.released_at IS NULL;

-- name: largest_apps
SELECT app_name FROM (
  SELECT app_name, sessions FROM lapse_levels
  UNION ALL SELECT app_name, sessions FROM lapse_counts WHERE became <> ''
  UNION ALL SELECT app_name, -sessions FROM lapse_counts WHERE was <> ''
) AS counted
GROUP BY app_name ORDER BY sum(sessions) DESC, app_name LIMIT :most;

-- name: unrecorded
-- The sessions of ADK's tables that have no record. It reads all of them.
SELECT count(*) AS sessions FROM sessions AS s WHERE NOT EXISTS (
  SELECT 1 FROM lapse_lobby AS l
  WHERE l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
);

-- name: fold_counts
-- It counts exactly the rows that it deletes, so several processes may fold at the same time. A
-- counter that another transaction has locked is left for the next fold.
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
-- The number of an hour stands in the row of its first five minutes.
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
-- The first of the three statements of a recount: no process can fold until it has ended.
LOCK TABLE lapse_levels IN SHARE ROW EXCLUSIVE MODE;

-- name: delete_levels
DELETE FROM lapse_levels;

-- name: recount
-- The levels exclude changes that are counted but not folded yet. One snapshot has the records and
-- their counts, because each change writes both in one transaction.
INSERT INTO lapse_levels (app_name, status, sessions)
SELECT app_name, status, sum(sessions) FROM (
  SELECT app_name, CASE status
      WHEN 'elsewhere' THEN 'used' WHEN 'moving' THEN 'waiting' WHEN 'deleting' THEN '' ELSE status
    END AS status, count(*) AS sessions
  FROM lapse_lobby GROUP BY app_name, lapse_lobby.status
  UNION ALL SELECT app_name, became, -sessions FROM lapse_counts
  UNION ALL SELECT app_name, was, sessions FROM lapse_counts
) AS counted
WHERE status <> '' GROUP BY app_name, status;

-- name: count
-- No-op: the statement of each transition contains count_changes.
