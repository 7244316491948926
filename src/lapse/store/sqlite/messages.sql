-- Events of sessions: used ones are appended to, the first message moves a session out of the lobby,
-- and the lobby holds what comes before it. The types of parameters are in sessions.sql.

-- name: append
-- Appends to ADK's tables, if they hold the session and the writer has seen its newest revision.
-- :exact says that the writer knows the revision; without it the newest event decides, which is
-- ADK's rule for sessions without a marker.
INSERT INTO events (
  id, app_name, user_id, session_id, invocation_id, timestamp, event_data
)
SELECT
  :event_id, :app_name, :user_id, :session_id, :invocation_id, :event_time, :event_data
WHERE EXISTS (
  SELECT 1 FROM sessions AS s
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
      AND l.status <> 'archived'
  WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
    AND CASE
      WHEN :exact THEN s.update_time = :seen_time
        AND (:seen_number IS NULL OR coalesce(l.revision, 0) = :seen_number)
      ELSE s.update_time <= :seen_time OR :seen_event IS (
        SELECT e.id FROM events AS e
        WHERE e.app_name = :app_name AND e.user_id = :user_id AND e.session_id = :session_id
        ORDER BY e.timestamp DESC, e.id DESC LIMIT 1
      )
    END
)
  AND {has_room}
ON CONFLICT DO NOTHING;

-- name: touch
-- The second statement of an append: ADK's update_time is that of the newest event.
UPDATE sessions
SET update_time = :event_time,
  state = CASE WHEN :delta IS NULL THEN state ELSE update_document(state, :delta) END
WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id;

-- name: count_append
UPDATE lapse_lobby SET revision = revision + 1, active_at = :now
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status <> 'archived'
RETURNING revision;

-- name: read_appended
-- Tells why an append changed nothing: whether ADK's tables hold the session (is_stored), its
-- revision, and whether a stored event of the same id has the same data (is_same, NULL if there
-- is no such event).
SELECT is_stored, revision, update_time, event_data = :event_data AS is_same
FROM (
  SELECT s.id IS NOT NULL AS is_stored, coalesce(l.revision, 0) AS revision,
    coalesce(s.update_time, l.update_time) AS update_time,
    coalesce(e.event_data, (
      SELECT value ->> 'event_data' FROM json_each(l.held_events)
      WHERE s.id IS NULL AND value ->> 'id' = :event_id
    )) AS event_data
  FROM (SELECT 1)
  LEFT JOIN sessions AS s
    ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  LEFT JOIN events AS e
    ON e.id = :event_id AND e.app_name = s.app_name AND e.user_id = s.user_id
    AND e.session_id = s.id
);

-- name: first_message
-- Returns a lobby row that takes its first message. The statements down to settle_used then move
-- what it holds into ADK's tables and mark it as used, in the same transaction. A session whose
-- deadline has passed, but that no sweep has expired, is always restorable: it has at least an hour
-- from its expiry. :counts is 0 for what the agent says, which is no message where only the user's
-- is.
SELECT *,
  EXISTS (SELECT 1 FROM app_states WHERE app_name = :app_name) AS has_app_state,
  EXISTS (SELECT 1 FROM user_states WHERE app_name = :app_name AND user_id = :user_id)
    AS has_user_state
FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND {may_live_on}
  AND (:counts OR used_by <> 'user')
  AND {held_is_as_seen}
  AND {event_is_not_held}
  AND {has_room}
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  );

-- name: may_live_on
-- Whether the session of a lobby row lives, or may be resurrected.
status = 'waiting' AND (expires_at > :now OR :horizon > 0 OR NOT :enforced)
OR status = 'expired' AND (restorable_until > :now OR NOT :enforced);

-- name: event_is_not_held
-- Whether a lobby row holds no event of this id.
held_events = '[]'
OR NOT EXISTS (SELECT 1 FROM json_each(held_events) WHERE value ->> 'id' = :event_id);

-- name: held_is_as_seen
-- Whether the writer has seen the newest version of a lobby row.
CASE
  WHEN :exact THEN update_time = :seen_time
    AND (:seen_number IS NULL OR revision = :seen_number)
  ELSE update_time <= :seen_time OR :seen_event IS json_extract(held_events, '$[#-1].id')
END;

-- name: move_session
INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
VALUES (:app_name, :user_id, :session_id, :state, :create_time, :event_time);

-- name: move_event
INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
VALUES (:event_id, :app_name, :user_id, :session_id, :invocation_id, :event_time, :event_data);

-- name: ensure_app_state
-- ADK refuses to append to a session whose app or user has no state row.
INSERT INTO app_states (app_name, state, update_time)
VALUES (:app_name, '{}', CURRENT_TIMESTAMP) ON CONFLICT DO NOTHING;

-- name: ensure_user_state
INSERT INTO user_states (app_name, user_id, state, update_time)
VALUES (:app_name, :user_id, '{}', CURRENT_TIMESTAMP) ON CONFLICT DO NOTHING;

-- name: settle_used
UPDATE lapse_lobby
SET status = 'used', first_message_at = :now, revision = revision + 1, expires_at = NULL,
  expired_at = NULL, restorable_until = NULL, state = NULL, held_events = NULL,
  resurrections = :resurrections, site = NULL
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
RETURNING *;

-- name: has_room
-- A condition of the statements that change a session: the app and user state, with what is added,
-- may be stored.
{app_has_room} AND {user_has_room};

-- name: app_has_room
-- CASE and not OR: SQLite may call the function of an OR first, also if the other half is true.
CASE
  WHEN :app_delta IS NULL THEN true
  ELSE stays_within(
    (SELECT state FROM app_states WHERE app_name = :app_name), :app_delta, :largest_shared_state
  )
END;

-- name: user_has_room
CASE
  WHEN :user_delta IS NULL THEN true
  ELSE stays_within(
    (SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id),
    :user_delta, :largest_shared_state
  )
END;

-- name: room
-- Why a change of state was refused.
SELECT {app_has_room} AS app_has_room, {user_has_room} AS user_has_room;

-- name: update_app_state
INSERT INTO app_states (app_name, state, update_time)
VALUES (:app_name, :delta, CURRENT_TIMESTAMP)
ON CONFLICT (app_name) DO UPDATE
SET state = update_document(state, excluded.state), update_time = excluded.update_time;

-- name: update_user_state
INSERT INTO user_states (app_name, user_id, state, update_time)
VALUES (:app_name, :user_id, :delta, CURRENT_TIMESTAMP)
ON CONFLICT (app_name, user_id) DO UPDATE
SET state = update_document(state, excluded.state), update_time = excluded.update_time;

-- name: hold_event
-- Holds an event that is not a message in the lobby, in order and with exactly its text. hold_words is
-- for the agent's events in sessions that only the user's message makes used.
UPDATE lapse_lobby
SET held_events = json_insert(held_events, '$[#]', json(:event)),
  state = CASE WHEN :delta IS NULL THEN state ELSE update_document(state, :delta) END,
  update_time = :event_time,
  revision = revision + 1
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND (status = 'waiting' AND expires_at > :now OR NOT :enforced AND status IN ('waiting', 'expired'))
  AND NOT (:by_agent AND used_by = 'user')
  AND {room_to_hold}
  AND {event_is_not_held}
  AND {has_room}
  AND {held_is_as_seen}
RETURNING revision;

-- name: hold_words
-- Holds an event of the agent in a session that only the user's message makes used. The deadline is
-- then a whole TTL ahead at least, and an expired session waits again: the run that speaks goes on.
UPDATE lapse_lobby
SET held_events = json_insert(held_events, '$[#]', json(:event)),
  state = CASE WHEN :delta IS NULL THEN state ELSE update_document(state, :delta) END,
  update_time = :event_time,
  revision = revision + 1,
  status = 'waiting',
  expires_at = max(CASE WHEN status = 'expired' THEN 0 ELSE expires_at END, :now + ttl),
  expired_at = NULL,
  restorable_until = NULL,
  resurrections = resurrections
    + (status = 'expired' OR :enforced AND expires_at <= :now),
  agent_spoke = agent_spoke OR :is_message
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND used_by = 'user'
  AND {may_live_on}
  AND {room_to_hold}
  AND {event_is_not_held}
  AND {has_room}
  AND {held_is_as_seen}
RETURNING *;

-- name: room_to_hold
-- A condition on a waiting row.
json_array_length(held_events) < :most_events
AND length(held_events) + length(:event) <= :most_bytes;

-- name: has_room_to_hold
-- Why an event was not held. It may be taken if the session lives, or if it is one that the agent's
-- words let wait again.
SELECT {room_to_hold} AS has_room,
  status = 'waiting' AND expires_at > :now OR NOT :enforced OR :by_agent AND used_by = 'user'
    AS may_be_taken
FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND held_events IS NOT NULL;

-- name: lifecycle
-- Returns the session's lobby row and, if ADK's tables hold it, when it was created there.
SELECT l.*, s.create_time, {key_is_held} AS is_held
FROM (SELECT 1)
LEFT JOIN lapse_lobby AS l
  ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
LEFT JOIN sessions AS s
  ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id;

-- name: read_event_texts
SELECT timestamp, event_data FROM events
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
ORDER BY timestamp, id;
