-- Pages of sessions. Each statement walks one index from the end of the page before, and examines
-- at most :most records. The operation filters rows as it reads them, and stops at a full page.

-- name: find_waiting
SELECT rowid AS row_id, app_name, user_id, session_id, status, expires_at AS moment FROM lapse_lobby
WHERE status = 'waiting' AND expires_at >= :after_moment
  AND (expires_at, app_name, user_id, session_id)
    > (:after_moment, :after_app, :after_user, :after_session)
ORDER BY expires_at, app_name, user_id, session_id LIMIT :most;

-- name: find_expired
SELECT rowid AS row_id, app_name, user_id, session_id, status,
  restorable_until AS moment FROM lapse_lobby
WHERE status = 'expired' AND restorable_until >= :after_moment
  AND (restorable_until, app_name, user_id, session_id)
    > (:after_moment, :after_app, :after_user, :after_session)
ORDER BY restorable_until, app_name, user_id, session_id LIMIT :most;

-- name: find_used
-- Two indexes have the used sessions: those in ADK's tables, and those in another service.
SELECT * FROM (
  SELECT rowid AS row_id, app_name, user_id, session_id, status, 0 AS moment FROM lapse_lobby
  WHERE used_id IS NOT NULL AND (app_name, user_id, used_id)
    > (:after_app, :after_user, :after_session)
  ORDER BY app_name, user_id, used_id LIMIT :most
)
UNION ALL
SELECT * FROM (
  SELECT rowid, app_name, user_id, session_id, status, 0 FROM lapse_lobby
  WHERE status = 'elsewhere' AND (app_name, user_id, session_id)
    > (:after_app, :after_user, :after_session)
  ORDER BY app_name, user_id, session_id LIMIT :most
)
ORDER BY 2, 3, 4 LIMIT :most;

-- name: find_used_of_app
SELECT * FROM (
  SELECT rowid AS row_id, app_name, user_id, session_id, status, 0 AS moment FROM lapse_lobby
  WHERE used_id IS NOT NULL AND app_name = :only_app
    AND (user_id, used_id) > (:after_user, :after_session)
  ORDER BY user_id, used_id LIMIT :most
)
UNION ALL
SELECT * FROM (
  SELECT rowid, app_name, user_id, session_id, status, 0 FROM lapse_lobby
  WHERE status = 'elsewhere' AND app_name = :only_app
    AND (user_id, session_id) > (:after_user, :after_session)
  ORDER BY user_id, session_id LIMIT :most
)
ORDER BY 3, 4 LIMIT :most;

-- name: find_archived
-- The archive has no other sessions.
SELECT l.rowid AS row_id, l.app_name, l.user_id, l.session_id, l.status, 0 AS moment
FROM lapse_archive AS a CROSS JOIN lapse_lobby AS l
  ON l.app_name = a.app_name AND l.user_id = a.user_id AND l.session_id = a.session_id
WHERE (a.app_name, a.user_id, a.session_id) > (:after_app, :after_user, :after_session)
ORDER BY a.app_name, a.user_id, a.session_id LIMIT :most;

-- name: find_any
SELECT rowid AS row_id, app_name, user_id, session_id, status, 0 AS moment FROM lapse_lobby
WHERE (app_name, user_id, session_id) > (:after_app, :after_user, :after_session)
ORDER BY app_name, user_id, session_id LIMIT :most;

-- name: find_of_app
SELECT rowid AS row_id, app_name, user_id, session_id, status, 0 AS moment FROM lapse_lobby
WHERE app_name = :only_app AND (user_id, session_id) > (:after_user, :after_session)
ORDER BY user_id, session_id LIMIT :most;

-- name: find_of_user
-- It looks in one app after the other, because no index begins with the user.
WITH apps AS (
  SELECT :only_app AS app WHERE :only_app IS NOT NULL
  UNION SELECT app_name FROM lapse_levels WHERE :only_app IS NULL
  UNION SELECT app_name FROM lapse_counts WHERE :only_app IS NULL
)
SELECT l.rowid AS row_id, app_name, user_id, session_id, status, 0 AS moment
FROM apps CROSS JOIN lapse_lobby AS l
WHERE app >= :after_app AND l.rowid IN (
  SELECT rowid FROM lapse_lobby AS k
  WHERE k.app_name = app AND k.user_id = :only_user
    AND k.session_id > CASE app WHEN :after_app THEN :after_session ELSE '' END
  ORDER BY k.session_id LIMIT :most
)
ORDER BY l.app_name, l.session_id LIMIT :most;

-- name: find_by_id
SELECT rowid AS row_id, app_name, user_id, session_id, status, 0 AS moment FROM lapse_lobby INDEXED BY lapse_lobby_id
WHERE (session_id, app_name, user_id) > (:after_session, :after_app, :after_user)
  AND session_id < :prefix_end
ORDER BY session_id, app_name, user_id LIMIT :most;

-- name: found
-- The records of a page, by the row ids that were found, in their order.
SELECT app_name, user_id, session_id, status, created_at, ttl, expires_at, first_message_at,
  expired_at, restorable_until, resurrections, metadata, used_by, agent_spoke, archived_at,
  pinned_at, {is_held} AS is_held
FROM json_each(:row_ids) AS r CROSS JOIN lapse_lobby AS l ON l.rowid = r.value
ORDER BY r.key;
