-- Who speaks in a sample of the sessions that ADK's tables hold.
--
-- Types of parameters:
-- :per_cent float8

-- name: sessions_about
-- About how many sessions there are, as the planner knows; below 1 if it does not.
SELECT reltuples::bigint AS sessions FROM pg_class WHERE oid = to_regclass('sessions');

-- name: speakers
-- It samples whole pages of the table, :per_cent of them.
SELECT app_name, count(*) AS sessions, count(*) FILTER (WHERE agent_only) AS agent_only FROM (
  SELECT s.app_name, NOT EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND {is_message_of_user}
  ) AS agent_only
  FROM (SELECT * FROM sessions TABLESAMPLE SYSTEM (:per_cent) LIMIT :most) AS s
  WHERE EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND {is_message}
  )
) AS heard
GROUP BY app_name ORDER BY app_name;
