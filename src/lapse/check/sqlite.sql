-- Who speaks in the newest sessions that ADK's tables hold.

-- name: sessions_about
-- No-op: the newest sessions are found by their row ids.

-- name: speakers
-- LIMIT -1 keeps SQLite from asking for the messages once for each place they stand in.
SELECT app_name, count(*) AS sessions, sum(agent_only) AS agent_only FROM (
  SELECT s.app_name, NOT EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND is_message_of_user(e.event_data)
  ) AS agent_only
  FROM (SELECT * FROM sessions ORDER BY rowid DESC LIMIT :most) AS s
  WHERE EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND is_message(e.event_data)
  )
  LIMIT -1
)
GROUP BY app_name ORDER BY app_name;
