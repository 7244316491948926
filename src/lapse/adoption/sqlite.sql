-- Adoption: moves empty sessions from ADK's tables into the lobby, and back.
--
-- is_message(text), is_message_of_user(text) and awaits(text) are `is_message`, `is_message_of_user`
-- and `awaits_answer` of `lapse.core.messages`, called with the JSON text of an event.
--
-- Types of parameters and columns:
-- :older_than duration
-- :began_at moment
-- :since adk_time

-- name: orphans
-- Examines the next sessions, and says which of them to adopt. It runs inside BEGIN IMMEDIATE, so
-- no writer of ADK can change them before the statements that follow.
SELECT s.app_name, s.user_id, s.id AS session_id, s.state, s.create_time, s.update_time,
  (:only_app IS NULL OR s.app_name = :only_app)
  AND s.create_time <= strftime(
    '%Y-%m-%d %H:%M:%S', (:now - :older_than) / 1000000, 'unixepoch'
  ) || printf('.%06d', (:now - :older_than) % 1000000)
  AND (:since IS NULL OR s.create_time >= :since)
  AND (NOT :since_prepared OR s.create_time >= (SELECT min(applied_at) FROM lapse_schema))
  AND s.id NOT GLOB 'adk-eval-session-*'
  AND s.id NOT GLOB '___eval___session___*'
  AND NOT EXISTS (
    SELECT 1 FROM lapse_lobby AS l
    WHERE l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
  )
  AND NOT EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND CASE
        WHEN :with_agent_only THEN is_message_of_user(e.event_data) OR awaits(e.event_data)
        WHEN :with_events THEN is_message(e.event_data) OR awaits(e.event_data)
        ELSE true
      END
  )
  AND CASE
    WHEN (:with_state OR s.state = '{}') AND (
      :with_events OR NOT :with_agent_only OR NOT EXISTS (
        SELECT 1 FROM events AS e
        WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      )
    ) THEN true
    ELSE :with_agent_only AND EXISTS (
      SELECT 1 FROM events AS e
      WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
        AND is_message(e.event_data)
    )
  END AS is_orphan
FROM sessions AS s
WHERE (s.app_name, s.user_id, s.id) > (:after_app, :after_user, :after_session)
ORDER BY s.app_name, s.user_id, s.id
LIMIT :limit;

-- name: adopt
-- Moves one session into the lobby, notes it for an undo, and deletes it from ADK's tables.
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, expires_at, expired_at,
  restorable_until, state, held_events, update_time, used_by, agent_spoke
)
SELECT app_name, user_id, id, CASE WHEN :is_due THEN 'expired' ELSE 'waiting' END,
  :created_at, :ttl, :created_at + :ttl, CASE WHEN :is_due THEN :now END,
  CASE WHEN :is_due THEN :now + :horizon END, state, :held_events, update_time,
  :used_by, :agent_spoke
FROM sessions
WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
RETURNING *;
INSERT INTO lapse_adopted (app_name, user_id, session_id, run, create_time, created_at)
SELECT app_name, user_id, id, :run, create_time, :created_at FROM sessions
WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id;
DELETE FROM sessions WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id;

-- name: events_to_hold
-- The events of a session in the form in which the lobby holds them, their number, and whether one
-- is a message.
SELECT count(*) AS events, coalesce(max(is_message(event_data)), 0) AS agent_spoke, json_group_array(json_object(
    'id', id, 'invocation_id', invocation_id, 'timestamp', timestamp, 'event_data', event_data
  )) AS held_events
FROM (
  SELECT * FROM events
  WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  ORDER BY timestamp, id
);

-- name: count_adopted
INSERT INTO lapse_adoptions (run, began_at, sessions) VALUES (:run, :now, :sessions)
ON CONFLICT (run) DO UPDATE SET sessions = sessions + excluded.sessions;

-- name: take_adopted
SELECT l.*, a.create_time FROM lapse_adopted AS a
JOIN lapse_lobby AS l USING (app_name, user_id, session_id)
WHERE a.run = :run
  AND (a.app_name, a.user_id, a.session_id) > (:after_app, :after_user, :after_session)
  AND l.created_at = a.created_at
  AND (
    l.status = 'waiting' OR l.status = 'expired' AND (l.restorable_until > :now OR NOT :enforced)
  )
ORDER BY a.app_name, a.user_id, a.session_id
LIMIT :limit;

-- name: put_back
-- Puts back what the lobby row holds: exactly the adopted session, unless it changed in the lobby.
INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
SELECT l.app_name, l.user_id, l.session_id, l.state, a.create_time, l.update_time
FROM lapse_lobby AS l
JOIN lapse_adopted AS a USING (app_name, user_id, session_id)
WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  AND a.run = :run
ON CONFLICT DO NOTHING
RETURNING id;

-- name: put_back_events
INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
SELECT value ->> 'id', app_name, user_id, session_id, value ->> 'invocation_id',
  value ->> 'timestamp', value ->> 'event_data'
FROM lapse_lobby, json_each(held_events)
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: forget_adopted
-- Deletes notes on sessions that cannot be put back: they are used, or another session has the key.
DELETE FROM lapse_adopted
WHERE EXISTS (
  SELECT 1 FROM lapse_lobby AS l
  WHERE l.app_name = lapse_adopted.app_name AND l.user_id = lapse_adopted.user_id
    AND l.session_id = lapse_adopted.session_id
    AND (l.status IN ('used', 'archived') OR l.created_at <> lapse_adopted.created_at)
);

-- name: adoptions
SELECT r.run, r.began_at, r.sessions, (
    SELECT count(*) FROM lapse_adopted AS a
    JOIN lapse_lobby AS l USING (app_name, user_id, session_id)
    WHERE a.run = r.run AND l.status NOT IN ('used', 'archived') AND l.created_at = a.created_at
  ) AS remaining
FROM lapse_adoptions AS r
ORDER BY r.began_at;

-- name: analyze_lobby
-- No-op: the plans of SQLite's statements do not depend on statistics.
