-- Pages of sessions. Each statement walks one index from the end of the page before, examines at
-- most :most records, and filters them. The last examined record is returned even if it does not
-- fit, because the next page begins after it.
--
-- Types of parameters:
-- :size bigint
-- :after_at timestamptz
-- :only_status, :only_user, :prefix, :prefix_end varchar

-- name: find_waiting
WITH examined AS (
  SELECT *, expires_at AS moment FROM lapse_lobby
  WHERE status = 'waiting' AND expires_at >= :after_at
    AND (expires_at, app_name, user_id, session_id)
      > (:after_at, :after_app, :after_user, :after_session)
  ORDER BY expires_at, app_name, user_id, session_id LIMIT :most
)
SELECT * FROM {found} AS found;

-- name: find_expired
WITH examined AS (
  SELECT *, restorable_until AS moment FROM lapse_lobby
  WHERE status = 'expired' AND restorable_until >= :after_at
    AND (restorable_until, app_name, user_id, session_id)
      > (:after_at, :after_app, :after_user, :after_session)
  ORDER BY restorable_until, app_name, user_id, session_id LIMIT :most
)
SELECT * FROM {found} AS found;

-- name: find_used
WITH examined AS (
  -- Two indexes have the used sessions: those in ADK's tables, and those in another service.
  SELECT * FROM (
    (
      SELECT *, NULL::timestamptz AS moment FROM lapse_lobby
      WHERE used_id IS NOT NULL AND (app_name, user_id, used_id)
        > (:after_app, :after_user, :after_session)
      ORDER BY app_name, user_id, used_id LIMIT :most
    )
    UNION ALL
    (
      SELECT *, NULL::timestamptz AS moment FROM lapse_lobby
      WHERE status = 'elsewhere' AND (app_name, user_id, session_id)
        > (:after_app, :after_user, :after_session)
      ORDER BY app_name, user_id, session_id LIMIT :most
    )
  ) AS used
  ORDER BY app_name, user_id, session_id LIMIT :most
)
SELECT * FROM {found} AS found;

-- name: find_used_of_app
WITH examined AS (
  SELECT * FROM (
    (
      SELECT *, NULL::timestamptz AS moment FROM lapse_lobby
      WHERE used_id IS NOT NULL AND app_name = :only_app
        AND (user_id, used_id) > (:after_user, :after_session)
      ORDER BY user_id, used_id LIMIT :most
    )
    UNION ALL
    (
      SELECT *, NULL::timestamptz AS moment FROM lapse_lobby
      WHERE status = 'elsewhere' AND app_name = :only_app
        AND (user_id, session_id) > (:after_user, :after_session)
      ORDER BY user_id, session_id LIMIT :most
    )
  ) AS used
  ORDER BY user_id, session_id LIMIT :most
)
SELECT * FROM {found} AS found;

-- name: find_archived
WITH examined AS (
  -- The archive has no other sessions.
  SELECT l.*, NULL::timestamptz AS moment
  FROM lapse_archive AS a
  JOIN lapse_lobby AS l
    ON l.app_name = a.app_name AND l.user_id = a.user_id AND l.session_id = a.session_id
  WHERE (a.app_name, a.user_id, a.session_id) > (:after_app, :after_user, :after_session)
  ORDER BY a.app_name, a.user_id, a.session_id LIMIT :most
)
SELECT * FROM {found} AS found;

-- name: find_any
WITH examined AS (
  SELECT *, NULL::timestamptz AS moment FROM lapse_lobby
  WHERE (app_name, user_id, session_id) > (:after_app, :after_user, :after_session)
  ORDER BY app_name, user_id, session_id LIMIT :most
)
SELECT * FROM {found} AS found;

-- name: find_of_app
WITH examined AS (
  SELECT *, NULL::timestamptz AS moment FROM lapse_lobby
  WHERE app_name = :only_app AND (user_id, session_id) > (:after_user, :after_session)
  ORDER BY user_id, session_id LIMIT :most
)
SELECT * FROM {found} AS found;

-- name: find_of_user
-- It looks in one app after the other, because no index begins with the user.
WITH apps AS (
  SELECT :only_app AS app WHERE :only_app IS NOT NULL
  UNION SELECT app_name FROM lapse_levels WHERE :only_app IS NULL
  UNION SELECT app_name FROM lapse_counts WHERE :only_app IS NULL
),
examined AS (
  SELECT l.*, NULL::timestamptz AS moment FROM apps
  CROSS JOIN LATERAL (
    SELECT * FROM lapse_lobby
    WHERE app_name = app AND user_id = :only_user
      AND session_id > CASE app WHEN :after_app THEN :after_session ELSE '' END
    ORDER BY session_id LIMIT :most
  ) AS l
  WHERE app >= :after_app
  ORDER BY l.app_name, l.session_id LIMIT :most
)
SELECT * FROM {found} AS found;

-- name: find_by_id
WITH examined AS (
  SELECT *, NULL::timestamptz AS moment FROM lapse_lobby
  WHERE (session_id COLLATE "C", app_name, user_id) > (:after_session, :after_app, :after_user)
    AND session_id COLLATE "C" < :prefix_end
  ORDER BY session_id COLLATE "C", app_name, user_id LIMIT :most
)
SELECT * FROM {found} AS found;

-- name: found
-- A part of the statements above.
SELECT l.*, {is_held} AS is_held, (SELECT count(*) FROM examined) AS examined,
  coalesce(:now, clock_timestamp()) AS now
FROM (
  SELECT app_name, user_id, session_id, status, created_at, ttl, expires_at, first_message_at,
    expired_at, restorable_until, resurrections, metadata, used_by, agent_spoke, archived_at,
  pinned_at, moment, row_number() OVER () AS ordinal,
    status <> 'deleting' AND (:only_status IS NULL OR {counts_as} = :only_status)
      AND (:only_app IS NULL OR app_name = :only_app)
      AND starts_with(session_id, :prefix) AS fits
  FROM examined
) AS l
WHERE fits OR ordinal = (SELECT count(*) FROM examined)
ORDER BY ordinal LIMIT :size
