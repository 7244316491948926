-- What watchers of sessions read, and how replicas tell each other what to look at.
--
-- Types of parameters:
-- :payload text

-- name: records
-- The three arrays hold one key in each position. There is always a row, for the clock.
SELECT k.position, l.*, s.create_time, clock.now
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock
LEFT JOIN unnest(:app_names, :user_ids, :session_ids)
  WITH ORDINALITY AS k (app_name, user_id, session_id, position) ON true
LEFT JOIN lapse_lobby AS l
  ON l.app_name = k.app_name AND l.user_id = k.user_id AND l.session_id = k.session_id
LEFT JOIN sessions AS s
  ON s.app_name = k.app_name AND s.user_id = k.user_id AND s.id = k.session_id;

-- name: announce
-- A transaction of its own, after the changes: NOTIFY in theirs would take a lock at commit
-- that all who notify share, and their first messages would wait for each other's disk.
SELECT pg_notify('lapse_changes', :payload)::text AS told;
