-- The named statements of `Sessions` on SQLite. One name has one SQL statement or several.
--
-- A name answers with the rows of all its statements, in order. Every write runs inside BEGIN
-- IMMEDIATE, so nothing else is written between two statements of one transition.
-- update_document(text, change) sets the top-level keys of `change` in the JSON object `text`, in
-- Python: SQLite's json_patch merges deeply and deletes on null, ADK does not.
-- stays_within(text, change, largest) returns whether the result is small enough to be stored.
-- :enforced is 0 while clean-up is switched off; :horizon is 0 if nothing is restorable.
--
-- Types of parameters and columns; all others need no conversion:
-- :created_at, :expires_at, :first_message_at, :expired_at, :restorable_until moment
-- :ttl, :horizon, :ahead duration
-- :create_time, :update_time, :event_time, :seen_time, :after, :timestamp adk_time

-- name: create
-- Replaces a row of the same key if that has expired, or if it is the record of a used session
-- that others deleted from ADK's tables. Returns the state of the app and of the user.
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, expires_at, metadata, state,
  held_events, update_time, site, used_by
)
SELECT
  :app_name, :user_id, :session_id, 'waiting', :now, :ttl, :now + :ttl, :metadata, :state,
  '[]',
  strftime('%Y-%m-%d %H:%M:%S', :now / 1000000, 'unixepoch') || printf('.%06d', :now % 1000000),
  :site, :used_by
WHERE NOT EXISTS (
  SELECT 1 FROM sessions
  WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
)
  AND {has_room}
ON CONFLICT (app_name, user_id, session_id) DO UPDATE SET
  status = excluded.status, created_at = excluded.created_at, ttl = excluded.ttl,
  expires_at = excluded.expires_at, first_message_at = NULL, expired_at = NULL,
  restorable_until = NULL, resurrections = 0, metadata = excluded.metadata,
  state = excluded.state, held_events = excluded.held_events,
  update_time = excluded.update_time, revision = 0, site = excluded.site,
  used_by = excluded.used_by, agent_spoke = 0, mark = NULL, active_at = NULL,
  restored_at = NULL, pinned_at = NULL, warned_at = NULL, check_at = NULL
WHERE lapse_lobby.status = 'used'
  OR :enforced AND (lapse_lobby.status = 'expired' OR lapse_lobby.expires_at <= :now)
    AND NOT {key_is_held}
RETURNING
  (SELECT state FROM app_states WHERE app_name = :app_name) AS app_state,
  (SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id) AS user_state,
  EXISTS (
    SELECT 1 FROM lapse_artifact_outbox
    WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  ) AS owes_artifacts;

-- name: read
-- ADK's tables come first: a lobby row never hides what they hold. The row of an archived session is
-- not that of one which stock ADK has made of its id since.
SELECT
  s.state AS state, s.update_time AS update_time, coalesce(l.revision, 0) AS revision,
  NULL AS held_events, 0 AS awaits_user, a.state AS app_state, u.state AS user_state,
  {event_text} AS event_text
FROM sessions AS s
LEFT JOIN lapse_lobby AS l
  ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
    AND l.status <> 'archived'
LEFT JOIN app_states AS a ON a.app_name = s.app_name
LEFT JOIN user_states AS u ON u.app_name = s.app_name AND u.user_id = s.user_id
WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
UNION ALL
SELECT
  l.state, l.update_time, l.revision, l.held_events, l.used_by = 'user', a.state, u.state, NULL
FROM lapse_lobby AS l
LEFT JOIN app_states AS a ON a.app_name = l.app_name
LEFT JOIN user_states AS u ON u.app_name = l.app_name AND u.user_id = l.user_id
WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  AND (l.status = 'waiting' AND l.expires_at > :now OR NOT :enforced AND l.status IN ('waiting', 'expired'))
LIMIT 1;

-- name: event_text
-- The events of the window as one value, in any order; NULL if there are none. A row for each event
-- would have the reading thread take Python's lock for each. The lengths in bytes of the four
-- columns come before them: any character may stand in an id. length() of a text ends at its
-- first NUL, that of a blob does not.
SELECT CAST(group_concat(
  length(CAST(id AS BLOB)) || ',' || length(CAST(invocation_id AS BLOB)) || ','
    || length(CAST(timestamp AS BLOB)) || ',' || length(CAST(event_data AS BLOB)) || ':'
    || id || invocation_id || timestamp || event_data,
  ''
) AS BLOB)
FROM (
  SELECT id, invocation_id, timestamp, coalesce(event_data, '') AS event_data FROM events
  WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
    AND timestamp >= :after
  ORDER BY timestamp DESC, id DESC
  LIMIT :newest
);

-- name: list_of_user
SELECT s.user_id AS user_id, s.id AS session_id, s.state AS state, s.update_time AS update_time,
  coalesce(l.revision, 0) AS revision
FROM sessions AS s
LEFT JOIN lapse_lobby AS l
  ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
    AND l.status <> 'archived'
WHERE s.app_name = :app_name AND s.user_id = :user_id
UNION ALL
SELECT l.user_id, l.session_id, l.state, l.update_time, l.revision
FROM lapse_lobby AS l
WHERE l.app_name = :app_name AND l.user_id = :user_id
  AND (l.status = 'waiting' AND l.expires_at > :now OR NOT :enforced AND l.status IN ('waiting', 'expired'))
  AND NOT EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
  )
ORDER BY 4, 1, 2;

-- name: list_of_app
SELECT s.user_id AS user_id, s.id AS session_id, s.state AS state, s.update_time AS update_time,
  coalesce(l.revision, 0) AS revision
FROM sessions AS s
LEFT JOIN lapse_lobby AS l
  ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
    AND l.status <> 'archived'
WHERE s.app_name = :app_name
UNION ALL
SELECT l.user_id, l.session_id, l.state, l.update_time, l.revision
FROM lapse_lobby AS l
WHERE l.app_name = :app_name
  AND (l.status = 'waiting' AND l.expires_at > :now OR NOT :enforced AND l.status IN ('waiting', 'expired'))
  AND NOT EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
  )
ORDER BY 4, 1, 2;

-- name: read_app_state
SELECT state FROM app_states WHERE app_name = :app_name;

-- name: read_user_state
SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id;

-- name: read_user_states
SELECT user_id, state FROM user_states WHERE app_name = :app_name;
