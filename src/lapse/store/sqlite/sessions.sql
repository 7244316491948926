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
  used_by = excluded.used_by, agent_spoke = 0
WHERE lapse_lobby.status = 'used'
  OR :enforced AND (lapse_lobby.status = 'expired' OR lapse_lobby.expires_at <= :now)
RETURNING
  (SELECT state FROM app_states WHERE app_name = :app_name) AS app_state,
  (SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id) AS user_state,
  EXISTS (
    SELECT 1 FROM lapse_artifact_outbox
    WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  ) AS owes_artifacts;

-- name: read
-- ADK's tables come first: a lobby row never hides what they hold.
SELECT
  s.state AS state, s.update_time AS update_time, coalesce(l.revision, 0) AS revision,
  NULL AS held_events, 0 AS awaits_user, a.state AS app_state, u.state AS user_state,
  {event_text} AS event_text
FROM sessions AS s
LEFT JOIN lapse_lobby AS l
  ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
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
  AND (l.status = 'waiting' AND l.expires_at > :now OR NOT :enforced AND l.status <> 'used')
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
WHERE s.app_name = :app_name AND s.user_id = :user_id
UNION ALL
SELECT l.user_id, l.session_id, l.state, l.update_time, l.revision
FROM lapse_lobby AS l
WHERE l.app_name = :app_name AND l.user_id = :user_id
  AND (l.status = 'waiting' AND l.expires_at > :now OR NOT :enforced AND l.status <> 'used')
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
WHERE s.app_name = :app_name
UNION ALL
SELECT l.user_id, l.session_id, l.state, l.update_time, l.revision
FROM lapse_lobby AS l
WHERE l.app_name = :app_name
  AND (l.status = 'waiting' AND l.expires_at > :now OR NOT :enforced AND l.status <> 'used')
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
UPDATE lapse_lobby SET revision = revision + 1
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
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
-- Marks a lobby row as used and returns what it holds. The statements down to settle_used then
-- move that into ADK's tables, in the same transaction. A session whose deadline has passed, but
-- that no sweep has expired, is always restorable: it has at least an hour from its expiry. :counts
-- is 0 for what the agent says, which is no message where only the user's is.
UPDATE lapse_lobby
SET status = 'used', first_message_at = :now, revision = revision + 1
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND (
    status = 'waiting' AND (expires_at > :now OR :horizon > 0 OR NOT :enforced)
    OR status = 'expired' AND (restorable_until > :now OR NOT :enforced)
  )
  AND (:counts OR used_by <> 'user')
  AND CASE
    WHEN :exact THEN update_time = :seen_time
      AND (:seen_number IS NULL OR revision = :seen_number)
    ELSE update_time <= :seen_time OR :seen_event IS json_extract(held_events, '$[#-1].id')
  END
  AND (
    held_events = '[]'
    OR NOT EXISTS (SELECT 1 FROM json_each(held_events) WHERE value ->> 'id' = :event_id)
  )
  AND {has_room}
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
RETURNING *;

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
SET expires_at = NULL, expired_at = NULL, restorable_until = NULL, state = NULL,
  held_events = NULL, resurrections = :resurrections, site = NULL
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
  AND (status = 'waiting' AND expires_at > :now OR NOT :enforced AND status <> 'used')
  AND NOT (:by_agent AND used_by = 'user')
  AND {room_to_hold}
  AND NOT EXISTS (SELECT 1 FROM json_each(held_events) WHERE value ->> 'id' = :event_id)
  AND {has_room}
  AND CASE
    WHEN :exact THEN update_time = :seen_time
      AND (:seen_number IS NULL OR revision = :seen_number)
    ELSE update_time <= :seen_time OR :seen_event IS json_extract(held_events, '$[#-1].id')
  END
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
  AND (
    status = 'waiting' AND (expires_at > :now OR :horizon > 0 OR NOT :enforced)
    OR status = 'expired' AND (restorable_until > :now OR NOT :enforced)
  )
  AND {room_to_hold}
  AND NOT EXISTS (SELECT 1 FROM json_each(held_events) WHERE value ->> 'id' = :event_id)
  AND {has_room}
  AND CASE
    WHEN :exact THEN update_time = :seen_time
      AND (:seen_number IS NULL OR revision = :seen_number)
    ELSE update_time <= :seen_time OR :seen_event IS json_extract(held_events, '$[#-1].id')
  END
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
SELECT l.*, s.create_time
FROM (SELECT 1)
LEFT JOIN lapse_lobby AS l
  ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
LEFT JOIN sessions AS s
  ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id;

-- name: read_event_texts
SELECT timestamp, event_data FROM events
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
ORDER BY timestamp, id;

-- name: delete_record
DELETE FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
RETURNING *;

-- name: delete_session
-- ON DELETE CASCADE deletes its events and its record, too.
DELETE FROM sessions WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
RETURNING id;

-- name: amend
UPDATE lapse_lobby
SET metadata = CASE
    WHEN :metadata IS NULL THEN metadata ELSE update_document(metadata, :metadata)
  END,
  ttl = coalesce(:ttl, ttl),
  expires_at = CASE WHEN :ttl IS NULL THEN expires_at ELSE :now + :ttl END
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND (:ttl IS NULL OR status = 'waiting' AND (expires_at > :now OR NOT :enforced))
  AND (
    :metadata IS NULL OR length(update_document(metadata, :metadata)) <= :largest_metadata
  )
  AND CASE status
    WHEN 'waiting' THEN expires_at > :now OR :horizon > 0 OR NOT :enforced
    WHEN 'expired' THEN restorable_until > :now OR NOT :enforced
    ELSE 1
  END
  AND (used_id IS NULL OR EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = used_id
  ))
RETURNING *;

-- name: extend
UPDATE lapse_lobby
SET expires_at = max(expires_at, min(:now + ttl, created_at + :extensible))
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'waiting' AND (expires_at > :now OR NOT :enforced)
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
RETURNING *;

-- name: hold_off
-- Moves the deadlines of sessions ahead in which runs are in flight. It returns those that wait.
UPDATE lapse_lobby SET expires_at = :now + :held_for
WHERE (app_name, user_id, session_id) IN (
    SELECT a.value, u.value, s.value FROM json_each(:app_names) AS a
    JOIN json_each(:user_ids) AS u ON u.key = a.key JOIN json_each(:session_ids) AS s ON s.key = a.key
  )
  AND status = 'waiting' AND (expires_at > :now OR NOT :enforced) AND used_by = 'user'
  AND expires_at < :now + :held_for;
SELECT app_name, user_id, session_id FROM lapse_lobby
WHERE (app_name, user_id, session_id) IN (
    SELECT a.value, u.value, s.value FROM json_each(:app_names) AS a
    JOIN json_each(:user_ids) AS u ON u.key = a.key JOIN json_each(:session_ids) AS s ON s.key = a.key
  )
  AND status = 'waiting' AND (expires_at > :now OR NOT :enforced) AND used_by = 'user';

-- name: restart_ttl
-- Gives a session a fresh TTL where a run begins or has ended. A deadline as near as a hold sets them
-- comes nearer if the TTL is short; a later one is not a hold's, and stays.
UPDATE lapse_lobby
SET expires_at = CASE
  WHEN expires_at <= :now + :held_for THEN :now + ttl ELSE max(expires_at, :now + ttl)
END
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'waiting' AND (expires_at > :now OR NOT :enforced) AND used_by = 'user'
RETURNING *;

-- name: resurrect
UPDATE lapse_lobby
SET status = 'waiting', expires_at = :now + ttl, expired_at = NULL, restorable_until = NULL,
  resurrections = resurrections + 1
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND (
    status = 'waiting' AND expires_at <= :now AND :horizon > 0 AND :enforced
    OR status = 'expired' AND (restorable_until > :now OR NOT :enforced)
  )
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
RETURNING *;

-- name: expire
UPDATE lapse_lobby
SET status = 'expired', expires_at = :now, expired_at = :now,
  restorable_until = CASE
    WHEN :horizon > 0 THEN max(created_at + :horizon, :now + :shortest_restore) ELSE :now
  END
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND :enforced AND status = 'waiting' AND expires_at > :now
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
RETURNING *;

-- name: expire_due
-- First the sessions that ADK's tables hold although their lobby row waits: stock ADK created one
-- of the same key. Lapse never expires them; it marks them as used.
UPDATE lapse_lobby
SET status = 'used', first_message_at = :now, expires_at = NULL, state = NULL, held_events = NULL
WHERE rowid IN (
    SELECT rowid FROM lapse_lobby
    WHERE status = 'waiting' AND expires_at <= :now ORDER BY expires_at LIMIT :limit
  )
  AND status = 'waiting' AND expires_at <= :now AND (:horizon > 0 OR NOT {is_braked})
  AND EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = lapse_lobby.app_name AND s.user_id = lapse_lobby.user_id
      AND s.id = lapse_lobby.session_id
  )
RETURNING *;
-- Then all others. The condition is repeated outside the sub-select, whose list of due rows is
-- only a hint.
UPDATE lapse_lobby
SET status = 'expired', expired_at = :now,
  restorable_until = CASE
    WHEN :horizon > 0 THEN max(created_at + :horizon, :now + :shortest_restore) ELSE :now
  END
WHERE rowid IN (
    SELECT rowid FROM lapse_lobby
    WHERE status = 'waiting' AND expires_at <= :now ORDER BY expires_at LIMIT :limit - changes()
  )
  AND status = 'waiting' AND expires_at <= :now AND (:horizon > 0 OR NOT {is_braked})
  AND NOT EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = lapse_lobby.app_name AND s.user_id = lapse_lobby.user_id
      AND s.id = lapse_lobby.session_id
  )
RETURNING *;

-- name: purge_due
DELETE FROM lapse_lobby
WHERE rowid IN (
    SELECT rowid FROM lapse_lobby
    WHERE status = 'expired' AND restorable_until <= :now ORDER BY restorable_until LIMIT :limit
  )
  AND status = 'expired' AND restorable_until <= :now AND NOT {is_braked}
RETURNING *;

-- name: time_to_next
-- Counts only what a sweep may do: a brake holds purges and, if nothing is restorable, expiry, too.
SELECT min(due) - :now AS ahead FROM (
  SELECT * FROM (
    SELECT expires_at AS due FROM lapse_lobby
    WHERE status = 'waiting'
      AND (:horizon > 0 OR NOT {is_braked})
    ORDER BY expires_at LIMIT 1
  )
  UNION ALL
  SELECT * FROM (
    SELECT restorable_until AS due FROM lapse_lobby
    WHERE status = 'expired'
      AND NOT {is_braked}
    ORDER BY restorable_until LIMIT 1
  )
);

-- name: attempt
-- No-op: an operation is one transaction in this process, so its outcome is never in doubt.

-- name: forget_attempts
-- No-op, likewise.

-- name: confirm
-- No-op: what can be read here is as durable as what was written with an answer.

-- name: status_before
-- Changes are counted by the status before.
SELECT status FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: ping
-- The bytes are new each time: SQLite does not write a page that stays as it is.
INSERT INTO lapse_pings (id, at, filler) VALUES (1, :now, randomblob(16384))
ON CONFLICT (id) DO UPDATE SET at = excluded.at, filler = excluded.filler;

-- name: read_ping
-- Another connection reads it, from the log or the file. The sum reads every page of the row.
SELECT at, length(hex(filler)) AS filler, (SELECT count(*) FROM (SELECT 1 FROM lapse_lobby LIMIT 1))
  AS lobby
FROM lapse_pings;

-- name: indexes
-- Like the next statement, it runs on a database of any version that nobody has opened.
SELECT name, true AS valid FROM sqlite_master WHERE type = 'index';

-- name: inspect_sessions
SELECT
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'waiting' AND expires_at <= :now LIMIT :most
  )) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'expired' AND restorable_until <= :now LIMIT :most
  )) AS purge,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'expired' AND first_message_at IS NOT NULL LIMIT :most
  )) AS used_but_expired;
