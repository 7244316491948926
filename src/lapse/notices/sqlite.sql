-- What the watcher reads.

-- name: records
-- :keys is a JSON array of [app_name, user_id, session_id]; `position` counts from 0. There is
-- always a row, because the caller needs `now`.
SELECT k.key AS position, l.*, s.create_time AS create_time, s.update_time AS last_event,
  {is_held} AS is_held
FROM (SELECT 1)
LEFT JOIN json_each(:keys) AS k
LEFT JOIN lapse_lobby AS l
  ON l.app_name = k.value ->> 0 AND l.user_id = k.value ->> 1 AND l.session_id = k.value ->> 2
LEFT JOIN sessions AS s
  ON s.app_name = k.value ->> 0 AND s.user_id = k.value ->> 1 AND s.id = k.value ->> 2;
