-- What an export reads of a user, and what an import writes. :imported is a JSON array of rows, each an
-- array of its columns; :after_id and :after say where the page before ended.
--
-- Types of parameters:
-- :imported json
-- :after_id varchar

-- name: apps_of_user
-- Each name of an app is found with one step in an index, however many sessions the app has.
WITH RECURSIVE
  s (app) AS (
    SELECT min(app_name) FROM sessions
    UNION ALL SELECT (SELECT min(app_name) FROM sessions WHERE app_name > app) FROM s
    WHERE app IS NOT NULL
  ),
  l (app) AS (
    SELECT min(app_name) FROM lapse_lobby
    UNION ALL SELECT (SELECT min(app_name) FROM lapse_lobby WHERE app_name > app) FROM l
    WHERE app IS NOT NULL
  ),
  u (app) AS (
    SELECT min(app_name) FROM user_states
    UNION ALL SELECT (SELECT min(app_name) FROM user_states WHERE app_name > app) FROM u
    WHERE app IS NOT NULL
  ),
  r (app) AS (
    SELECT min(app_name) FROM lapse_runs
    UNION ALL SELECT (SELECT min(app_name) FROM lapse_runs WHERE app_name > app) FROM r
    WHERE app IS NOT NULL
  )
SELECT app AS app_name FROM s
WHERE EXISTS (SELECT 1 FROM sessions WHERE app_name = app AND user_id = :user_id)
UNION SELECT app FROM l
WHERE EXISTS (SELECT 1 FROM lapse_lobby WHERE app_name = app AND user_id = :user_id)
UNION SELECT app FROM u
WHERE EXISTS (SELECT 1 FROM user_states WHERE app_name = app AND user_id = :user_id)
UNION SELECT app FROM r
WHERE EXISTS (SELECT 1 FROM lapse_runs WHERE app_name = app AND user_id = :user_id)
ORDER BY 1;

-- name: ids_of_user
-- The ids of a user's sessions in an app, in ADK's tables and in the lobby.
SELECT id AS session_id FROM sessions
WHERE app_name = :app_name AND user_id = :user_id AND id > :after_id
UNION SELECT session_id FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id > :after_id
ORDER BY 1 LIMIT :limit;

-- name: is_elsewhere
-- Whether another session service has sessions of the user, or is about to.
SELECT EXISTS (
  SELECT 1 FROM lapse_lobby
  WHERE app_name = :app_name AND user_id = :user_id
    AND status IN ('moving', 'elsewhere', 'deleting')
) AS is_elsewhere;

-- name: export_user_states
SELECT * FROM user_states
WHERE app_name = :app_name AND user_id = :user_id AND :after_id = '' LIMIT :limit;

-- name: export_sessions
SELECT * FROM sessions
WHERE app_name = :app_name AND user_id = :user_id AND id > :after_id ORDER BY id LIMIT :limit;

-- name: export_events
SELECT * FROM events
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND (timestamp, id) > (:after, :after_id)
ORDER BY timestamp, id LIMIT :limit;

-- name: export_lobby
SELECT * FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id > :after_id
ORDER BY session_id LIMIT :limit;

-- name: export_archive
SELECT * FROM lapse_archive
WHERE app_name = :app_name AND user_id = :user_id AND session_id > :after_id
ORDER BY session_id LIMIT :limit;

-- name: export_runs
SELECT * FROM lapse_runs
WHERE app_name = :app_name AND user_id = :user_id AND run_id > :after_id
ORDER BY run_id LIMIT :limit;

-- name: existing_states
SELECT u.app_name || ': state of the user' AS name FROM json_array_elements(:imported) AS i (value)
JOIN user_states AS u ON u.app_name = i.value ->> 0 AND u.user_id = i.value ->> 1;

-- name: existing_sessions
SELECT i.value ->> 2 AS name FROM json_array_elements(:imported) AS i (value)
WHERE EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = i.value ->> 0 AND s.user_id = i.value ->> 1 AND s.id = i.value ->> 2
  )
  OR EXISTS (
    SELECT 1 FROM lapse_lobby AS l
    WHERE l.app_name = i.value ->> 0 AND l.user_id = i.value ->> 1 AND l.session_id = i.value ->> 2
  );

-- name: existing_runs
SELECT r.run_id AS name FROM json_array_elements(:imported) AS i (value)
JOIN lapse_runs AS r ON r.run_id = i.value ->> 0;

-- name: import_user_states
INSERT INTO user_states (app_name, user_id, update_time, state)
SELECT value ->> 0, value ->> 1, (value ->> 2)::timestamp, (value ->> 3)::jsonb
FROM json_array_elements(:imported) AS i (value) ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_sessions
INSERT INTO sessions (app_name, user_id, id, create_time, update_time, state)
SELECT value ->> 0, value ->> 1, value ->> 2, (value ->> 3)::timestamp, (value ->> 4)::timestamp,
  (value ->> 5)::jsonb
FROM json_array_elements(:imported) AS i (value) ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_events
INSERT INTO events (app_name, user_id, session_id, id, invocation_id, timestamp, event_data)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, (value ->> 5)::timestamp,
  (value ->> 6)::jsonb
FROM json_array_elements(:imported) AS i (value) ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_lobby
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, expires_at, first_message_at, expired_at,
  restorable_until, resurrections, revision, used_by, agent_spoke, metadata, update_time, state,
  held_events, active_at, restored_at, archived_at, pinned_at, warned_at, check_at
)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, (value ->> 4)::timestamptz,
  (value ->> 5)::interval, (value ->> 6)::timestamptz, (value ->> 7)::timestamptz,
  (value ->> 8)::timestamptz, (value ->> 9)::timestamptz, (value ->> 10)::integer,
  (value ->> 11)::bigint, value ->> 12, (value ->> 13)::boolean, (value ->> 14)::jsonb,
  (value ->> 15)::timestamp, (value ->> 16)::jsonb, (value ->> 17)::jsonb,
  (value ->> 18)::timestamptz, (value ->> 19)::timestamptz, (value ->> 20)::timestamptz,
  (value ->> 21)::timestamptz, (value ->> 22)::timestamptz, (value ->> 23)::timestamptz
FROM json_array_elements(:imported) AS i (value) ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_archive
INSERT INTO lapse_archive (
  app_name, user_id, session_id, update_time, newest_event, events, content
)
SELECT value ->> 0, value ->> 1, value ->> 2, (value ->> 3)::timestamp, value ->> 4,
  (value ->> 5)::bigint, decode(value ->> 6, 'hex')
FROM json_array_elements(:imported) AS i (value) ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_runs
INSERT INTO lapse_runs (
  app_name, user_id, session_id, run_id, status, started_at, heartbeat_at, ended_at,
  cancel_requested, invocation_id, since, until, error
)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, (value ->> 5)::timestamptz,
  (value ->> 6)::timestamptz, (value ->> 7)::timestamptz, (value ->> 8)::boolean, value ->> 9,
  (value ->> 10)::timestamp, (value ->> 11)::timestamp, (value ->> 12)::jsonb
FROM json_array_elements(:imported) AS i (value) ON CONFLICT DO NOTHING RETURNING 1;

-- name: count_imported
-- Rows of app, status and number: the levels move, and no change is counted.
INSERT INTO lapse_counts AS c (app_name, at, kind, was, became, shard, sessions)
SELECT value ->> 0, date_bin('5 minutes', coalesce(:now, clock_timestamp()), 'epoch'), '', '',
  value ->> 1, pg_backend_pid() % 32, (value ->> 2)::bigint
FROM json_array_elements(:imported) AS i (value)
ON CONFLICT ON CONSTRAINT lapse_counts_pkey
  DO UPDATE SET sessions = c.sessions + excluded.sessions;

-- name: ensure_imported_app
-- ADK refuses to append to a session whose app has no state row.
INSERT INTO app_states (app_name, state, update_time)
SELECT value ->> 0, '{}', clock_timestamp() AT TIME ZONE 'UTC'
FROM json_array_elements(:imported) AS i (value) ON CONFLICT DO NOTHING;
