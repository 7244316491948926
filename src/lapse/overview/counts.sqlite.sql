-- Counts of changes by app, kind and time, and levels: the number of sessions by app and status.
--
-- Types of parameters and columns:
-- :at, :next_expiry, :next_purge moment
-- :max_age, :fine, :kept duration

-- name: count
-- Rides in the transaction of every transition.
INSERT INTO lapse_counts (app_name, at, kind, was, became, sessions)
VALUES (:app_name, :now / 300000000 * 300000000, :kind, :was, :became, :sessions)
ON CONFLICT (app_name, at, kind, was, became) DO UPDATE SET sessions = sessions + excluded.sessions;

-- name: levels
-- The stored levels, plus the changes that were counted since these were brought up to date.
SELECT app_name, status, sum(sessions) AS sessions FROM (
  SELECT app_name, status, sessions FROM lapse_levels
  UNION ALL SELECT app_name, became, sessions FROM lapse_counts
  UNION ALL SELECT app_name, was, -sessions FROM lapse_counts
)
WHERE status <> '' GROUP BY app_name, status HAVING sum(sessions) <> 0
ORDER BY app_name, status;

-- name: counts
SELECT app_name, kind, at, sum(sessions) AS sessions FROM (
  SELECT app_name, kind, at, sessions FROM lapse_counted WHERE at > :now - :max_age
  UNION ALL
  SELECT app_name, kind, at, sessions FROM lapse_counts WHERE at > :now - :max_age AND kind <> ''
)
GROUP BY app_name, kind, at ORDER BY at, app_name, kind;

-- name: agent_only
-- The waiting sessions in which only the agent spoke.
SELECT app_name, count(*) AS sessions FROM lapse_lobby
WHERE agent_spoke AND status = 'waiting' GROUP BY app_name;

-- name: levels_of_all
-- The levels of all apps together.
SELECT '' AS app_name, status, sum(sessions) AS sessions FROM (
  SELECT status, sessions FROM lapse_levels_of_all
  UNION ALL SELECT became, sessions FROM lapse_counts
  UNION ALL SELECT was, -sessions FROM lapse_counts
)
WHERE status <> '' GROUP BY status HAVING sum(sessions) <> 0 ORDER BY status;

-- name: counts_of_all
SELECT '' AS app_name, kind, at, sum(sessions) AS sessions FROM (
  SELECT kind, at, sessions FROM lapse_counted_of_all WHERE at > :now - :max_age
  UNION ALL
  SELECT kind, at, sessions FROM lapse_counts WHERE at > :now - :max_age AND kind <> ''
)
GROUP BY kind, at ORDER BY at, kind;

-- name: agent_only_of_all
-- SQLite would take the index of all that waits.
SELECT '' AS app_name, count(*) AS sessions FROM lapse_lobby INDEXED BY lapse_lobby_agent_spoke
WHERE agent_spoke AND status = 'waiting' HAVING count(*) > 0;

-- name: largest_apps
SELECT app_name FROM (
  SELECT app_name, sessions FROM lapse_levels
  UNION ALL SELECT app_name, sessions FROM lapse_counts WHERE became <> ''
  UNION ALL SELECT app_name, -sessions FROM lapse_counts WHERE was <> ''
)
GROUP BY app_name ORDER BY sum(sessions) DESC, app_name LIMIT :most;

-- name: unrecorded
-- The sessions of ADK's tables that have no record. It reads all of them.
SELECT count(*) AS sessions FROM sessions AS s WHERE NOT EXISTS (
  SELECT 1 FROM lapse_lobby AS l
  WHERE l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
);

-- name: moments
SELECT
  (SELECT expires_at FROM lapse_lobby WHERE status = 'waiting' ORDER BY expires_at LIMIT 1)
    AS next_expiry,
  (SELECT restorable_until FROM lapse_lobby AS l WHERE status = 'expired' AND NOT {is_held}
   ORDER BY restorable_until LIMIT 1) AS next_purge,
  (SELECT swept_at FROM lapse_sweeps) AS swept_at,
  -- Without the order SQLite reads all expired sessions, by another index.
  (SELECT count(*) FROM (
    SELECT app_name FROM lapse_lobby
    WHERE status = 'expired' AND first_message_at IS NOT NULL ORDER BY app_name LIMIT 10000
  )) AS used_but_expired;

-- name: fold_counts
-- Counts from before the present five minutes move into the levels and into the history of counts.
INSERT INTO lapse_levels (app_name, status, sessions)
SELECT app_name, status, sum(sessions) FROM (
  SELECT app_name, became AS status, sessions FROM lapse_counts WHERE at < :now / 300000000 * 300000000
  UNION ALL SELECT app_name, was, -sessions FROM lapse_counts WHERE at < :now / 300000000 * 300000000
)
WHERE status <> '' GROUP BY app_name, status
ON CONFLICT (app_name, status) DO UPDATE SET sessions = sessions + excluded.sessions;
INSERT INTO lapse_counted (at, app_name, kind, sessions)
SELECT at, app_name, kind, sum(sessions) FROM lapse_counts
WHERE at < :now / 300000000 * 300000000 AND kind <> '' GROUP BY at, app_name, kind
ON CONFLICT (at, app_name, kind) DO UPDATE SET sessions = sessions + excluded.sessions;
DELETE FROM lapse_counts WHERE at < :now / 300000000 * 300000000;

-- name: fold_hours
-- The number of an hour stands in the row of its first five minutes.
INSERT INTO lapse_counted (at, app_name, kind, sessions)
SELECT at / 3600000000 * 3600000000, app_name, kind, sum(sessions) FROM lapse_counted
WHERE at < (:now - :fine) / 3600000000 * 3600000000 AND at % 3600000000 <> 0 GROUP BY 1, 2, 3
ON CONFLICT (at, app_name, kind) DO UPDATE SET sessions = sessions + excluded.sessions;
DELETE FROM lapse_counted
WHERE at < (:now - :fine) / 3600000000 * 3600000000 AND at % 3600000000 <> 0 OR at < :now - :kept;

-- name: delete_levels
DELETE FROM lapse_levels;

-- name: recount
INSERT INTO lapse_levels (app_name, status, sessions)
SELECT app_name, status, sum(sessions) FROM (
  SELECT app_name, CASE status
      WHEN 'elsewhere' THEN 'used' WHEN 'moving' THEN 'waiting' WHEN 'deleting' THEN '' ELSE status
    END AS status, count(*) AS sessions
  FROM lapse_lobby GROUP BY app_name, lapse_lobby.status
  UNION ALL SELECT app_name, became, -sessions FROM lapse_counts
  UNION ALL SELECT app_name, was, sessions FROM lapse_counts
)
WHERE status <> '' GROUP BY app_name, status;

-- name: lock_levels
-- No-op: no other process writes during the transaction of a recount.
