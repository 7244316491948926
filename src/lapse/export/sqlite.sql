-- What an export reads of a user, and what an import writes. :imported is a JSON array of rows, each an
-- array of its columns; :after_id and :after say where the page before ended.

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
SELECT u.app_name || ': state of the user' AS name FROM json_each(:imported) AS i
JOIN user_states AS u ON u.app_name = i.value ->> 0 AND u.user_id = i.value ->> 1;

-- name: existing_sessions
SELECT i.value ->> 2 AS name FROM json_each(:imported) AS i
WHERE EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = i.value ->> 0 AND s.user_id = i.value ->> 1 AND s.id = i.value ->> 2
  )
  OR EXISTS (
    SELECT 1 FROM lapse_lobby AS l
    WHERE l.app_name = i.value ->> 0 AND l.user_id = i.value ->> 1 AND l.session_id = i.value ->> 2
  );

-- name: existing_runs
SELECT r.run_id AS name FROM json_each(:imported) AS i
JOIN lapse_runs AS r ON r.run_id = i.value ->> 0;

-- name: import_user_states
INSERT INTO user_states (app_name, user_id, update_time, state)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(:imported)
WHERE true ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_sessions
INSERT INTO sessions (app_name, user_id, id, create_time, update_time, state)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
FROM json_each(:imported)
WHERE true ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_events
INSERT INTO events (app_name, user_id, session_id, id, invocation_id, timestamp, event_data)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
FROM json_each(:imported)
WHERE true ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_lobby
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, expires_at, first_message_at, expired_at,
  restorable_until, resurrections, revision, used_by, agent_spoke, metadata, update_time, state,
  held_events, active_at, restored_at, archived_at, pinned_at, warned_at, check_at
)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
  value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13,
  value ->> 14, value ->> 15, value ->> 16, json(value ->> 17), value ->> 18, value ->> 19,
  value ->> 20, value ->> 21, value ->> 22, value ->> 23
FROM json_each(:imported)
WHERE true ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_archive
INSERT INTO lapse_archive (
  app_name, user_id, session_id, update_time, newest_event, events, content
)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
  bytes_of(value ->> 6)
FROM json_each(:imported)
WHERE true ON CONFLICT DO NOTHING RETURNING 1;

-- name: import_runs
INSERT INTO lapse_runs (
  app_name, user_id, session_id, run_id, status, started_at, heartbeat_at, ended_at,
  cancel_requested, invocation_id, since, until, error
)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
  value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12
FROM json_each(:imported)
WHERE true ON CONFLICT DO NOTHING RETURNING 1;

-- name: count_imported
-- Rows of app, status and number: the levels move, and no change is counted.
INSERT INTO lapse_counts (app_name, at, kind, was, became, sessions)
SELECT value ->> 0, :now / 300000000 * 300000000, '', '', value ->> 1, value ->> 2
FROM json_each(:imported)
WHERE true
ON CONFLICT (app_name, at, kind, was, became) DO UPDATE SET sessions = sessions + excluded.sessions;

-- name: ensure_imported_app
-- ADK refuses to append to a session whose app has no state row.
INSERT INTO app_states (app_name, state, update_time)
SELECT value ->> 0, '{}', CURRENT_TIMESTAMP FROM json_each(:imported)
WHERE true ON CONFLICT DO NOTHING;
