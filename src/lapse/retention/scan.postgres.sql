-- The scan for used sessions of which nobody told when to look at them.
--
-- Types of parameters:
-- :later_pause, :pause interval
-- :is_last boolean
-- :check_ats timestamptz[]

-- name: scan_turn
-- A scan of all sessions that is complete goes on from the start, at the slower pace.
UPDATE lapse_retention
SET scan_at = coalesce(:now, clock_timestamp())
  + CASE WHEN scanned_at IS NULL THEN :pause ELSE :later_pause END
WHERE digest = :policy_digest AND (scan_at IS NULL OR scan_at <= coalesce(:now, clock_timestamp()))
RETURNING after_app, after_user, after_session, scanned_at IS NOT NULL AS is_whole;

-- name: scan_on
UPDATE lapse_retention
SET after_app = :after_app, after_user = :after_user, after_session = :after_session,
  scanned_at = CASE WHEN :is_last THEN coalesce(scanned_at, :now, clock_timestamp())
    ELSE scanned_at END;

-- name: scan_page
-- The limit of one has each record looked up by its key, however the planner estimates.
SELECT s.app_name, s.user_id, s.id AS session_id, s.update_time AS last_event, l.status, l.check_at,
  l.warned_at, l.first_message_at, l.active_at, l.restored_at, clock.now
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock
CROSS JOIN (
  SELECT app_name, user_id, id, update_time FROM sessions
  WHERE (app_name, user_id, id) > (:after_app, :after_user, :after_session)
  ORDER BY app_name, user_id, id LIMIT :limit
) AS s
LEFT JOIN LATERAL (
  SELECT * FROM lapse_lobby AS l
  WHERE l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id LIMIT 1
) AS l ON true
ORDER BY s.app_name, s.user_id, s.id;

-- name: record_page
WITH done AS (
  INSERT INTO lapse_lobby (
    app_name, user_id, session_id, status, created_at, ttl, first_message_at, update_time
  )
  SELECT s.app_name, s.user_id, s.id, 'used', s.create_time AT TIME ZONE 'UTC', :ttl,
    m.timestamp AT TIME ZONE 'UTC', s.update_time
  FROM {keys} AS k
  JOIN sessions AS s
    ON s.app_name = k.app_name AND s.user_id = k.user_id AND s.id = k.session_id
  CROSS JOIN LATERAL (
    SELECT e.timestamp FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND {is_message}
    ORDER BY e.timestamp, e.id LIMIT 1
  ) AS m
  ON CONFLICT DO NOTHING
  RETURNING app_name, user_id, session_id, first_message_at, update_time AS last_event,
    coalesce(:now, clock_timestamp()) AS now, check_at, warned_at, active_at, restored_at
),
changes AS (
  SELECT app_name, '' AS kind, '' AS was, 'used' AS became, now FROM done
),
counted AS {count_changes}
SELECT * FROM done;

-- name: check_page
-- A row that is locked is being changed by a message, and is found by the next scan: to wait for many
-- rows could end in a deadlock.
WITH asked AS MATERIALIZED (
  SELECT * FROM unnest(:app_names, :user_ids, :session_ids, :check_ats)
    AS k (app_name, user_id, session_id, check_at)
  WHERE k.session_id || '' = k.session_id
),
free AS (
  SELECT l.app_name, l.user_id, l.session_id, a.check_at
  FROM asked AS a
  JOIN lapse_lobby AS l
    ON l.app_name = a.app_name AND l.user_id = a.user_id AND l.session_id = a.session_id
  WHERE l.status = 'used'
  FOR NO KEY UPDATE OF l SKIP LOCKED
)
UPDATE lapse_lobby AS l SET check_at = f.check_at FROM free AS f
WHERE l.app_name = f.app_name AND l.user_id = f.user_id AND l.session_id = f.session_id
  AND l.status = 'used';

-- name: check_user
-- Skips locked rows as `check_page` does.
WITH free AS (
  SELECT app_name, user_id, session_id FROM lapse_lobby
  WHERE app_name = :app_name AND user_id = :user_id AND used_id IS NOT NULL
    AND (check_at IS NULL OR check_at > coalesce(:now, clock_timestamp()))
  FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE lapse_lobby AS l SET check_at = coalesce(:now, clock_timestamp()) FROM free AS f
WHERE l.app_name = f.app_name AND l.user_id = f.user_id AND l.session_id = f.session_id
  AND l.status = 'used';
