-- What the watcher reads.

-- name: records
-- The three arrays hold one key in each position; `position` counts from 0. There is always a row,
-- because the caller needs `now`.
SELECT k.position - 1 AS position, l.*, s.create_time, s.update_time AS last_event,
  {is_held} AS is_held, clock.now
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock
LEFT JOIN unnest(:app_names, :user_ids, :session_ids)
  WITH ORDINALITY AS k (app_name, user_id, session_id, position) ON true
LEFT JOIN lapse_lobby AS l
  ON l.app_name = k.app_name AND l.user_id = k.user_id AND l.session_id = k.session_id
LEFT JOIN sessions AS s
  ON s.app_name = k.app_name AND s.user_id = k.user_id AND s.id = k.session_id;
