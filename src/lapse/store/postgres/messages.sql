-- Events of sessions: used ones are appended to, the first message moves a session out of the lobby,
-- and the lobby holds what comes before it. The types of parameters are in sessions.sql.

-- name: append
-- Appends to ADK's tables, if they hold the session and the writer has seen its newest revision.
-- The record's row is locked first, then the session's row; each is checked again under its lock.
-- :exact says that the writer knows the revision; without it the newest event decides, which is
-- ADK's rule for sessions without a marker. A session without a record (stock ADK's) has only its
-- own row to lock.
WITH fresh AS (
  SELECT {event_is_new} AND {has_room} AS may_be_stored
),
counted AS (
  UPDATE lapse_lobby AS l
  SET revision = l.revision + 1, active_at = coalesce(:now, clock_timestamp())
  FROM fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND may_be_stored AND l.status <> 'archived'
    AND (:seen_number IS NULL OR l.revision = :seen_number)
    AND EXISTS (
      SELECT 1 FROM sessions AS s
      WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
        AND {is_as_seen}
    )
  RETURNING l.revision
),
done AS (
  UPDATE sessions AS s
  SET update_time = :event_time,
    state = s.state || coalesce(:session_delta, '{}')
  FROM fresh
  WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
    AND may_be_stored
    AND (
      EXISTS (SELECT 1 FROM counted)
      OR coalesce(:seen_number, 0) = 0 AND NOT EXISTS (
        SELECT 1 FROM lapse_lobby
        WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
          AND status <> 'archived'
      )
    )
    AND {is_as_seen}
  RETURNING s.id
),
stored AS (
  INSERT INTO events (
    id, app_name, user_id, session_id, invocation_id, timestamp, event_data
  )
  SELECT :event_id, :app_name, :user_id, :session_id, :invocation_id, :event_time,
    :event_data
  FROM done
),
app_delta AS {change_app_state},
user_delta AS {change_user_state}
SELECT coalesce((SELECT revision FROM counted), 0) AS revision FROM done;

-- name: event_is_new
-- The sub-select looks for the event by its key, whatever PostgreSQL believes of the table's size.
(
  SELECT id FROM events
  WHERE id = :event_id AND app_name = :app_name AND user_id = :user_id
    AND session_id = :session_id
) IS NULL;

-- name: is_as_seen
-- A condition of append on ADK's row `s`: the writer has seen the session's newest revision.
CASE
  WHEN :exact THEN s.update_time = :seen_time
  ELSE s.update_time <= :seen_time OR (
    SELECT e.id FROM events AS e
    WHERE e.app_name = :app_name AND e.user_id = :user_id AND e.session_id = :session_id
    ORDER BY e.timestamp DESC, e.id DESC LIMIT 1
  ) IS NOT DISTINCT FROM :seen_event
END;

-- name: read_appended
-- Tells why an append changed nothing: whether ADK's tables hold the session (is_stored), its
-- revision, and whether a stored event of the same id has the same data (is_same, NULL if there
-- is no such event).
SELECT s.id IS NOT NULL AS is_stored, coalesce(l.revision, 0) AS revision,
  coalesce(s.update_time, l.update_time) AS update_time,
  coalesce(e.event_data, (
    SELECT held -> 'event_data' FROM jsonb_array_elements(l.held_events) AS held
    WHERE held ->> 'id' = :event_id
  )) AS event_data,
  coalesce(e.event_data, (
    SELECT held -> 'event_data' FROM jsonb_array_elements(l.held_events) AS held
    WHERE held ->> 'id' = :event_id
  )) = :event_data AS is_same
FROM (SELECT 1) AS always
LEFT JOIN sessions AS s
  ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
LEFT JOIN lapse_lobby AS l
  ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
LEFT JOIN events AS e
  ON e.id = :event_id AND e.app_name = :app_name AND e.user_id = :user_id
  AND e.session_id = :session_id;

-- name: first_message
-- Moves a session out of the lobby. The row's lock decides between it and a sweep, a delete or
-- another first message. A session whose deadline has passed, but that no sweep has expired, is
-- always restorable: it has at least an hour from its expiry. :counts is false for what the agent
-- says, which is no message where only the user's is.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.*, now, l.status = 'expired' OR :enforced AND l.expires_at <= now AS was_expired
  FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND {may_be_used}
    AND {has_room}
  FOR UPDATE OF l
),
marked AS (
  UPDATE lapse_lobby AS l
  SET status = 'used', first_message_at = taken.now, revision = l.revision + 1,
    resurrections = l.resurrections + taken.was_expired::int, expires_at = NULL,
    expired_at = NULL, restorable_until = NULL, state = NULL, held_events = NULL,
    site = NULL
  FROM taken
  WHERE l.app_name = taken.app_name AND l.user_id = taken.user_id
    AND l.session_id = taken.session_id
  RETURNING l.*, taken.now, taken.was_expired, taken.status AS was, taken.state AS held_state,
    taken.held_events AS held
),
changes AS {changes_of_used},
counted AS {count_changes},
moved AS {move_used},
observed AS {observe_used},
stored AS {store_events_of_used},
app_delta AS (
  -- A missing row is inserted even if nothing changes: ADK refuses to append without one. An
  -- existing row is left alone if nothing changes: its lock would make every first message of an
  -- app wait.
  INSERT INTO app_states AS held (app_name, state, update_time)
  SELECT app_name, coalesce(:app_delta, '{}'), now() AT TIME ZONE 'UTC' FROM marked
  WHERE :app_delta IS NOT NULL
    OR NOT EXISTS (SELECT 1 FROM app_states WHERE app_name = :app_name)
  ON CONFLICT (app_name) DO UPDATE
  SET state = {changed_state}, update_time = excluded.update_time
),
user_delta AS (
  INSERT INTO user_states AS held (app_name, user_id, state, update_time)
  SELECT app_name, user_id, coalesce(:user_delta, '{}'), now() AT TIME ZONE 'UTC'
  FROM marked
  WHERE :user_delta IS NOT NULL OR NOT EXISTS (
    SELECT 1 FROM user_states WHERE app_name = :app_name AND user_id = :user_id
  )
  ON CONFLICT (app_name, user_id) DO UPDATE
  SET state = {changed_state}, update_time = excluded.update_time
)
SELECT * FROM marked;

-- name: changes_of_used
-- This and the next three are parts of first_message and first_message_many; `a` is a marked row.
SELECT app_name, 'used' AS kind, CASE WHEN was_expired THEN 'waiting' ELSE was END AS was,
  'used' AS became, now
FROM marked
UNION ALL
SELECT app_name, 'resurrected', was, 'waiting', now FROM marked WHERE was_expired;

-- name: move_used
INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
SELECT app_name, user_id, session_id, held_state || coalesce(:session_delta, '{}'),
  created_at AT TIME ZONE 'UTC', :event_time
FROM marked AS a;

-- name: observe_used
-- Each observation is a row: a counter would make every first message wait for the one before.
-- A session of the legacy endpoint is left out, because its first message creates it.
INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
SELECT app_name, lapse_segment(metadata),
  CASE WHEN :in_control THEN 'control' ELSE 'used' END, user_id, created_at, first_message_at
FROM marked AS a WHERE metadata ->> 'kind' IS DISTINCT FROM 'legacy-session';

-- name: store_events_of_used
INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
SELECT e ->> 'id', app_name, user_id, session_id, e ->> 'invocation_id',
  (e ->> 'timestamp')::timestamp, e -> 'event_data'
FROM marked, jsonb_array_elements(marked.held) AS e
UNION ALL
SELECT :event_id, app_name, user_id, session_id, :invocation_id, :event_time, :event_data
FROM marked AS a;

-- name: may_be_used
-- A condition of first_message on the lobby row `l`, at `now`.
{may_live_on} AND (:counts OR l.used_by <> 'user') AND {event_is_not_held} AND {held_is_as_seen};

-- name: in_lobby
-- Whether the session of the lobby row `l` waits, or has waited, for its first message.
l.status IN ('waiting', 'expired');

-- name: counts_as
-- The status by which a lobby row is counted.
CASE status WHEN 'elsewhere' THEN 'used' WHEN 'moving' THEN 'waiting' ELSE status END;

-- name: may_live_on
-- Whether the session of the lobby row `l` lives at `now`, or may be resurrected.
l.status = 'waiting' AND (l.expires_at > now OR :horizon > interval '0' OR NOT :enforced)
OR l.status = 'expired' AND (l.restorable_until > now OR NOT :enforced);

-- name: event_is_not_held
-- Whether the lobby row `l` holds no event of this id.
NOT EXISTS (
  SELECT 1 FROM jsonb_array_elements(l.held_events) AS held WHERE held ->> 'id' = :event_id
);

-- name: held_is_as_seen
-- Whether the writer has seen the newest version of the lobby row `l`.
CASE
  WHEN :exact THEN l.update_time = :seen_time
    AND (:seen_number IS NULL OR l.revision = :seen_number)
  ELSE l.update_time <= :seen_time
    OR l.held_events -> -1 ->> 'id' IS NOT DISTINCT FROM :seen_event
END;

-- name: hold_event
-- Holds an event that is not a message in the lobby, in order. hold_words is for the agent's events in
-- sessions that only the user's message makes used.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
done AS (
  UPDATE lapse_lobby AS l
  SET held_events = l.held_events || :event,
    state = l.state || coalesce(:session_delta, '{}'),
    update_time = :event_time,
    revision = l.revision + 1
  FROM clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND (l.status = 'waiting' AND l.expires_at > now OR NOT :enforced AND {in_lobby})
    AND NOT (:by_agent AND l.used_by = 'user')
    AND {room_to_hold}
    AND {event_is_not_held}
    AND {has_room}
    AND {held_is_as_seen}
  RETURNING l.revision
),
app_delta AS {change_app_state},
user_delta AS {change_user_state}
SELECT revision FROM done;

-- name: hold_words
-- Holds an event of the agent in a session that only the user's message makes used. The deadline is
-- then a whole TTL ahead at least, and an expired session waits again: the run that speaks goes on.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, l.status, now,
    l.status = 'expired' OR :enforced AND l.expires_at <= now AS was_expired
  FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.used_by = 'user'
    AND {may_live_on}
    AND {room_to_hold}
    AND {event_is_not_held}
    AND {has_room}
    AND {held_is_as_seen}
  FOR UPDATE OF l
),
done AS (
  UPDATE lapse_lobby AS l
  SET held_events = l.held_events || :event,
    state = l.state || coalesce(:session_delta, '{}'),
    update_time = :event_time,
    revision = l.revision + 1,
    status = 'waiting',
    expires_at = CASE WHEN was_expired THEN now + l.ttl ELSE greatest(l.expires_at, now + l.ttl) END,
    expired_at = NULL,
    restorable_until = NULL,
    resurrections = l.resurrections + was_expired::int,
    agent_spoke = l.agent_spoke OR :is_message
  FROM taken
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now, was_expired, taken.status AS was
),
changes AS (
  SELECT app_name, 'resurrected' AS kind, was, status AS became, now FROM done WHERE was_expired
),
counted AS {count_changes},
app_delta AS {change_app_state},
user_delta AS {change_user_state}
SELECT *,
  CASE WHEN was_expired THEN {near_deadline_told} END AS notified
FROM done;

-- name: room_to_hold
-- A condition on a waiting row.
jsonb_array_length(l.held_events) < :most_events
AND octet_length(l.held_events::text) + octet_length(:event::text) <= :most_bytes;

-- name: has_room_to_hold
-- Why an event was not held. It may be taken if the session lives, or if it is one that the agent's
-- words let wait again.
SELECT {room_to_hold} AS has_room,
  l.status = 'waiting' AND l.expires_at > coalesce(:now, clock_timestamp()) OR NOT :enforced
    OR :by_agent AND l.used_by = 'user' AS may_be_taken
FROM lapse_lobby AS l
WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  AND l.held_events IS NOT NULL;

-- name: lifecycle
-- Returns the session's lobby row and, if ADK's tables hold it, when it was created there.
SELECT l.*, s.create_time, {key_is_held} AS is_held, coalesce(:now, clock_timestamp()) AS now
FROM (SELECT 1) AS always
LEFT JOIN lapse_lobby AS l
  ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
LEFT JOIN sessions AS s
  ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id;

-- name: read_event_texts
SELECT timestamp, event_data::text AS event_data FROM events
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
ORDER BY timestamp, id;
