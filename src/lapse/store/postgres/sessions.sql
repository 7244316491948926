-- The named statements of `Sessions` on PostgreSQL: each transition and each read is one statement,
-- and so one round trip.
--
-- A name is the same as on SQLite; what SQLite does in further statements is a part of it here.
-- NOTIFY tells other replicas' sweepers of a deadline that they would otherwise see too late. For
-- any other deadline it is not worth the lock that all commits with NOTIFY share.
-- :now is NULL outside tests: the database's clock is the only one. :horizon is zero if nothing
-- is restorable. READ COMMITTED is enough: a statement that waited for a row's lock checks its
-- condition on that row again, and every condition is on the row that it is about.
--
-- Types of parameters:
-- :attempt, :largest_metadata, :largest_shared_state, :limit, :most, :most_bytes, :most_events bigint
-- :newest, :seen_number bigint
-- :artifacts, :by_agent, :counts, :enforced, :exact, :in_control, :is_message boolean
-- :extensible, :held_for, :horizon, :kept, :shortest_restore, :ttl interval
-- :app_delta, :event, :event_data, :metadata, :session_delta, :state, :user_delta jsonb
-- :after, :event_time, :seen_create_time, :seen_time, :since timestamp
-- :now, :seen_created_at timestamptz
-- :after_app, :after_session, :after_user, :app_name, :event_id, :invocation_id varchar
-- :only_app, :seen_event, :session_id, :site, :used_by, :user_id varchar
-- :app_names, :session_ids, :user_ids varchar[]

-- name: create
-- Replaces a row of the same key if that has expired. The row is locked and read first, because
-- changes are counted by the status before. A row that appears in between is of another create,
-- and stays.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
before AS (
  SELECT status FROM lapse_lobby
  WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  FOR UPDATE
),
done AS (
  INSERT INTO lapse_lobby AS l (
    app_name, user_id, session_id, status, created_at, ttl, expires_at, metadata, state,
    held_events, update_time, site, used_by
  )
  SELECT
    :app_name, :user_id, :session_id, 'waiting', now, :ttl, now + :ttl,
    :metadata, :state, '[]', now AT TIME ZONE 'UTC', :site, :used_by
  FROM clock
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
    used_by = excluded.used_by, agent_spoke = false
  WHERE :enforced
    AND (l.status = 'expired' OR l.status = 'waiting' AND l.expires_at <= excluded.created_at)
    AND l.status = (SELECT status FROM before)
  RETURNING created_at
),
changes AS (
  SELECT :app_name AS app_name, 'created' AS kind,
    coalesce((SELECT status FROM before), '') AS was, 'waiting' AS became, created_at AS now
  FROM done
),
counted AS {count_changes},
app_delta AS {change_app_state},
user_delta AS {change_user_state},
ended AS (
  SELECT :app_name AS app_name, :user_id AS user_id, :session_id AS session_id, created_at AS now
  FROM done WHERE EXISTS (SELECT 1 FROM before)
),
owed AS {owe_artifacts}
SELECT
  done.created_at AS now,
  :artifacts AND EXISTS (SELECT 1 FROM ended) OR EXISTS (
    SELECT 1 FROM lapse_artifact_outbox
    WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  ) AS owes_artifacts,
  coalesce(
    (SELECT state FROM app_delta), (SELECT state FROM app_states WHERE app_name = :app_name)
  ) AS app_state,
  coalesce(
    (SELECT state FROM user_delta),
    (SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id)
  ) AS user_state,
  CASE WHEN :ttl < interval '20 s' THEN pg_notify(
    'lapse_deadlines', extract(epoch FROM :ttl)::text
  )::text END AS notified
FROM done;

-- name: has_room
-- A condition of the statements that change a session: the app and user state, with what is added,
-- may be stored. It reads the snapshot; changed_state checks the locked rows again.
{app_has_room} AND {user_has_room};

-- name: app_has_room
-- Whether the app state, with what is added to it, may be stored.
:app_delta IS NULL OR coalesce(
  (
    SELECT octet_length((state || :app_delta)::text)
      <= greatest(:largest_shared_state, octet_length(state::text))
    FROM app_states WHERE app_name = :app_name
  ),
  octet_length(:app_delta::text) <= :largest_shared_state
);

-- name: user_has_room
:user_delta IS NULL OR coalesce(
  (
    SELECT octet_length((state || :user_delta)::text)
      <= greatest(:largest_shared_state, octet_length(state::text))
    FROM user_states WHERE app_name = :app_name AND user_id = :user_id
  ),
  octet_length(:user_delta::text) <= :largest_shared_state
);

-- name: room
-- Why a change of state was refused.
SELECT {app_has_room} AS app_has_room, {user_has_room} AS user_has_room;

-- name: changed_state
-- The state of an app or of a user, with what is added. If others have filled it since the statement
-- began, it is NULL. ADK's column refuses NULL, so nothing of the statement is done, and `Call`
-- returns no row, as if has_room had been false.
CASE
  WHEN octet_length((held.state || excluded.state)::text)
    <= greatest(:largest_shared_state, octet_length(held.state::text))
  THEN held.state || excluded.state
END;

-- name: once
-- A part of the statements that a repeat must not carry out again. Their table `taken` has the row
-- that is locked, if its state allows the change; without the row of this part they change nothing.
-- The note of an attempt in progress makes its repeat wait here until it is known what became of it.
INSERT INTO lapse_attempts (attempt, session_id, at)
SELECT :attempt, session_id, now FROM taken
ON CONFLICT DO NOTHING
RETURNING attempt;

-- name: noted
-- A part of the statements whose own condition stops a repeat: their table `done` has a row if they
-- did what was asked for.
INSERT INTO lapse_attempts (attempt, at)
SELECT :attempt, coalesce(:now, clock_timestamp()) FROM done
ON CONFLICT DO NOTHING;

-- name: attempt
-- The note of the attempt that has done what a repeat did not do again.
SELECT session_id, at FROM lapse_attempts WHERE attempt = :attempt;

-- name: forget_attempts
DELETE FROM lapse_attempts WHERE at < coalesce(:now, clock_timestamp()) - :kept;

-- name: confirm
-- A commit waits for the synchronous standby only if it has written something. All that the call has
-- read was committed before this message, and stands before it in the log.
SELECT pg_logical_emit_message(true, 'lapse', '')::text AS written;

-- name: change_app_state
-- A part of the statements that change a session: their table `done` has its row.
INSERT INTO app_states AS held (app_name, state, update_time)
SELECT :app_name, :app_delta, now() AT TIME ZONE 'UTC' FROM done
WHERE :app_delta IS NOT NULL
ON CONFLICT (app_name) DO UPDATE
SET state = {changed_state}, update_time = excluded.update_time
RETURNING state;

-- name: change_user_state
INSERT INTO user_states AS held (app_name, user_id, state, update_time)
SELECT :app_name, :user_id, :user_delta, now() AT TIME ZONE 'UTC' FROM done
WHERE :user_delta IS NOT NULL
ON CONFLICT (app_name, user_id) DO UPDATE
SET state = {changed_state}, update_time = excluded.update_time
RETURNING state;

-- name: read
-- ADK's tables come first: a lobby row never hides what they hold. The events of the window come
-- as one value, of four arrays in the form in which PostgreSQL sends them, the newest first: whoever
-- has seen the same value before need not read it. It is NULL if there are no events.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
found AS (
  SELECT s.state, s.update_time, coalesce(l.revision, 0) AS revision, NULL::jsonb AS held_events,
    false AS awaits_user, 1 AS place
  FROM sessions AS s
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
  WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
  UNION ALL
  SELECT l.state, l.update_time, l.revision, l.held_events, l.used_by = 'user', 2
  FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND (l.status = 'waiting' AND l.expires_at > now OR NOT :enforced AND l.status <> 'used')
  ORDER BY place LIMIT 1
)
SELECT found.*,
  (SELECT state FROM app_states WHERE app_name = :app_name) AS app_state,
  (SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id) AS user_state,
  e.*
FROM found
LEFT JOIN LATERAL (
  SELECT array_send(array_agg(id)) || array_send(array_agg(invocation_id))
    || array_send(array_agg(timestamp))
    || array_send(array_agg(coalesce(event_data::text, ''))) AS event_text
  FROM (
    SELECT id, invocation_id, timestamp, event_data FROM events
    WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
      AND timestamp >= :after
    ORDER BY timestamp DESC, id DESC
    LIMIT :newest
  ) AS window_events
) AS e ON found.held_events IS NULL;

-- name: list_of_user
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
SELECT * FROM (
  SELECT s.user_id, s.id AS session_id, s.state, s.update_time, coalesce(l.revision, 0) AS revision,
    (SELECT state FROM app_states WHERE app_name = :app_name) AS app_state, u.state AS user_state
  FROM sessions AS s
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
  LEFT JOIN user_states AS u ON u.app_name = s.app_name AND u.user_id = s.user_id
  WHERE s.app_name = :app_name AND s.user_id = :user_id
  UNION ALL
  SELECT l.user_id, l.session_id, l.state, l.update_time, l.revision,
    (SELECT state FROM app_states WHERE app_name = :app_name), u.state
  FROM lapse_lobby AS l
  CROSS JOIN clock
  LEFT JOIN user_states AS u ON u.app_name = l.app_name AND u.user_id = l.user_id
  WHERE l.app_name = :app_name AND l.user_id = :user_id
    AND (l.status = 'waiting' AND l.expires_at > now OR NOT :enforced AND l.status <> 'used')
    AND NOT EXISTS (
      SELECT 1 FROM sessions AS s
      WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
    )
) AS found
ORDER BY update_time, user_id COLLATE "C", session_id COLLATE "C";

-- name: list_of_app
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
SELECT * FROM (
  SELECT s.user_id, s.id AS session_id, s.state, s.update_time, coalesce(l.revision, 0) AS revision,
    (SELECT state FROM app_states WHERE app_name = :app_name) AS app_state, u.state AS user_state
  FROM sessions AS s
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
  LEFT JOIN user_states AS u ON u.app_name = s.app_name AND u.user_id = s.user_id
  WHERE s.app_name = :app_name
  UNION ALL
  SELECT l.user_id, l.session_id, l.state, l.update_time, l.revision,
    (SELECT state FROM app_states WHERE app_name = :app_name), u.state
  FROM lapse_lobby AS l
  CROSS JOIN clock
  LEFT JOIN user_states AS u ON u.app_name = l.app_name AND u.user_id = l.user_id
  WHERE l.app_name = :app_name
    AND (l.status = 'waiting' AND l.expires_at > now OR NOT :enforced AND l.status <> 'used')
    AND NOT EXISTS (
      SELECT 1 FROM sessions AS s
      WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
    )
) AS found
ORDER BY update_time, user_id COLLATE "C", session_id COLLATE "C";

-- name: read_user_state
SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id;

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
  UPDATE lapse_lobby AS l SET revision = l.revision + 1
  FROM fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND may_be_stored
    AND (:seen_number IS NULL OR l.revision = :seen_number)
    AND EXISTS (
      SELECT 1 FROM sessions AS s
      WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
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
changes AS (
  SELECT app_name, 'used' AS kind, CASE WHEN was_expired THEN 'waiting' ELSE was END AS was,
    'used' AS became, now
  FROM marked
  UNION ALL
  SELECT app_name, 'resurrected', was, 'waiting', now FROM marked WHERE was_expired
),
counted AS {count_changes},
moved AS (
  INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
  SELECT app_name, user_id, session_id, held_state || coalesce(:session_delta, '{}'),
    created_at AT TIME ZONE 'UTC', :event_time
  FROM marked
),
observed AS (
  -- Each observation is a row: a counter would make every first message wait for the one before.
  -- A session of the legacy endpoint is left out, because its first message creates it.
  INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
  SELECT app_name, lapse_segment(metadata),
    CASE WHEN :in_control THEN 'control' ELSE 'used' END, user_id, created_at, first_message_at
  FROM marked WHERE metadata ->> 'kind' IS DISTINCT FROM 'legacy-session'
),
stored AS (
  INSERT INTO events (
    id, app_name, user_id, session_id, invocation_id, timestamp, event_data
  )
  SELECT e ->> 'id', app_name, user_id, session_id, e ->> 'invocation_id',
    (e ->> 'timestamp')::timestamp, e -> 'event_data'
  FROM marked, jsonb_array_elements(marked.held) AS e
  UNION ALL
  SELECT :event_id, app_name, user_id, session_id, :invocation_id, :event_time,
    :event_data
  FROM marked
),
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

-- name: may_be_used
-- A condition of first_message on the lobby row `l`, at `now`.
(
  l.status = 'waiting' AND (l.expires_at > now OR :horizon > interval '0' OR NOT :enforced)
  OR l.status = 'expired' AND (l.restorable_until > now OR NOT :enforced)
)
AND (:counts OR l.used_by <> 'user')
AND NOT EXISTS (
  SELECT 1 FROM jsonb_array_elements(l.held_events) AS held WHERE held ->> 'id' = :event_id
)
AND CASE
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
    AND (l.status = 'waiting' AND l.expires_at > now OR NOT :enforced AND l.status <> 'used')
    AND NOT (:by_agent AND l.used_by = 'user')
    AND {room_to_hold}
    AND NOT EXISTS (
      SELECT 1 FROM jsonb_array_elements(l.held_events) AS e WHERE e ->> 'id' = :event_id
    )
    AND {has_room}
    AND CASE
      WHEN :exact THEN l.update_time = :seen_time
        AND (:seen_number IS NULL OR l.revision = :seen_number)
      ELSE l.update_time <= :seen_time
        OR l.held_events -> -1 ->> 'id' IS NOT DISTINCT FROM :seen_event
    END
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
    AND (
      l.status = 'waiting'
        AND (l.expires_at > now OR :horizon > interval '0' OR NOT :enforced)
      OR l.status = 'expired' AND (l.restorable_until > now OR NOT :enforced)
    )
    AND {room_to_hold}
    AND NOT EXISTS (
      SELECT 1 FROM jsonb_array_elements(l.held_events) AS e WHERE e ->> 'id' = :event_id
    )
    AND {has_room}
    AND CASE
      WHEN :exact THEN l.update_time = :seen_time
        AND (:seen_number IS NULL OR l.revision = :seen_number)
      ELSE l.update_time <= :seen_time
        OR l.held_events -> -1 ->> 'id' IS NOT DISTINCT FROM :seen_event
    END
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
  CASE WHEN was_expired AND expires_at - now < interval '20 s' THEN pg_notify(
    'lapse_deadlines', extract(epoch FROM expires_at - now)::text
  )::text END AS notified
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
SELECT l.*, s.create_time, coalesce(:now, clock_timestamp()) AS now
FROM (SELECT 1) AS always
LEFT JOIN lapse_lobby AS l
  ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
LEFT JOIN sessions AS s
  ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id;

-- name: read_event_texts
SELECT timestamp, event_data::text AS event_data FROM events
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
ORDER BY timestamp, id;

-- name: delete_record
-- The first of the two statements of a delete, because an append locks the record first, too. Both
-- delete only the session that the call has seen first, and never another that has its key by now. Its
-- creation goes with it where it moves: into ADK's tables by a message, into the lobby by an adoption.
WITH ended AS (
  DELETE FROM lapse_lobby AS l
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.created_at IN (:seen_created_at, :seen_create_time AT TIME ZONE 'UTC')
  RETURNING l.*, coalesce(:now, clock_timestamp()) AS now
),
changes AS (
  -- A session that was no longer restorable does not count as deleted. Deletes of used sessions
  -- are counted by a trigger.
  SELECT app_name,
    CASE
      WHEN NOT :enforced OR CASE status
          WHEN 'waiting' THEN expires_at > now OR :horizon > interval '0'
          ELSE restorable_until > now
        END THEN 'deleted' ELSE ''
    END AS kind,
    status AS was, '' AS became, now
  FROM ended WHERE status <> 'used'
),
counted AS {count_changes},
observed AS (
  INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
  SELECT app_name, lapse_segment(metadata), 'withdrawn', user_id, created_at, now
  FROM ended WHERE status <> 'used'
),
owed AS {owe_artifacts}
SELECT * FROM ended;

-- name: delete_session
-- A statement of its own, so that it sees the session that a first message moved here while
-- delete_record waited for its lock. ON DELETE CASCADE deletes the events.
WITH ended AS (
  DELETE FROM sessions
  WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
    AND create_time IN (:seen_create_time, :seen_created_at AT TIME ZONE 'UTC')
  RETURNING app_name, user_id, id AS session_id, coalesce(:now, clock_timestamp()) AS now
),
owed AS {owe_artifacts}
SELECT now FROM ended;

-- name: amend
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND (
      :ttl IS NULL
      OR l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced)
    )
    AND (
      :metadata IS NULL
      OR octet_length((l.metadata || :metadata)::text) <= :largest_metadata
    )
    AND CASE l.status
      WHEN 'waiting' THEN l.expires_at > now OR :horizon > interval '0' OR NOT :enforced
      WHEN 'expired' THEN l.restorable_until > now OR NOT :enforced
      ELSE true
    END
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET metadata = l.metadata || coalesce(:metadata, '{}'),
    ttl = coalesce(:ttl, l.ttl),
    expires_at = CASE WHEN :ttl IS NULL THEN l.expires_at ELSE now + :ttl END
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'amended' AS kind, status AS was, status AS became, now FROM done
),
counted AS {count_changes},
audited AS {audited}
SELECT *,
  CASE WHEN expires_at - now < interval '20 s' THEN pg_notify(
    'lapse_deadlines', extract(epoch FROM expires_at - now)::text
  )::text END AS notified
FROM done;

-- name: extend
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced)
    AND NOT EXISTS (
      SELECT 1 FROM sessions
      WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
    )
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET expires_at = greatest(
    l.expires_at, least(now + l.ttl, l.created_at + :extensible)
  )
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'extended' AS kind, status AS was, status AS became, now FROM done
),
counted AS {count_changes},
audited AS {audited}
SELECT * FROM done;

-- name: hold_off
-- Moves the deadlines of sessions ahead in which runs are in flight. It returns those that wait.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
waiting AS (
  SELECT l.app_name, l.user_id, l.session_id, l.expires_at
  FROM unnest(:app_names, :user_ids, :session_ids) AS k (app_name, user_id, session_id)
  JOIN lapse_lobby AS l USING (app_name, user_id, session_id)
  CROSS JOIN clock
  WHERE l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced) AND l.used_by = 'user'
),
moved AS (
  UPDATE lapse_lobby AS l SET expires_at = now + :held_for
  FROM waiting AS w, clock, set_config('synchronous_commit', 'off', true) AS relaxed
  WHERE l.app_name = w.app_name AND l.user_id = w.user_id AND l.session_id = w.session_id
    AND w.expires_at < now + :held_for
    AND l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced)
    AND l.expires_at < now + :held_for
  RETURNING l.app_name, l.user_id, l.session_id
)
SELECT app_name, user_id, session_id FROM waiting, clock WHERE expires_at >= now + :held_for
UNION ALL
SELECT app_name, user_id, session_id FROM moved;

-- name: restart_ttl
-- Gives a session a fresh TTL where a run begins or has ended. A deadline as near as a hold sets them
-- comes nearer if the TTL is short; a later one is not a hold's, and stays.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced) AND l.used_by = 'user'
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET expires_at = CASE
    WHEN l.expires_at <= now + :held_for THEN now + l.ttl ELSE greatest(l.expires_at, now + l.ttl)
  END
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'extended' AS kind, status AS was, status AS became, now FROM done
),
counted AS {count_changes}
SELECT *,
  CASE WHEN expires_at - now < interval '20 s' THEN pg_notify(
    'lapse_deadlines', extract(epoch FROM expires_at - now)::text
  )::text END AS notified
FROM done;

-- name: resurrect
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, l.status, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND (
      l.status = 'waiting' AND l.expires_at <= now AND :horizon > interval '0'
        AND :enforced
      OR l.status = 'expired' AND (l.restorable_until > now OR NOT :enforced)
    )
    AND NOT EXISTS (
      SELECT 1 FROM sessions
      WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
    )
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'waiting', expires_at = now + l.ttl, expired_at = NULL, restorable_until = NULL,
    resurrections = l.resurrections + 1
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now, taken.status AS was
),
changes AS (
  SELECT app_name, 'resurrected' AS kind, was, status AS became, now FROM done
),
counted AS {count_changes},
audited AS {audited}
SELECT *,
  CASE WHEN expires_at - now < interval '20 s' THEN pg_notify(
    'lapse_deadlines', extract(epoch FROM expires_at - now)::text
  )::text END AS notified
FROM done;

-- name: expire
-- Expires a waiting session now. The statement waits for the row's lock of a concurrent first
-- message and checks its condition again: the message wins.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND :enforced AND l.status = 'waiting' AND l.expires_at > now
    AND NOT EXISTS (
      SELECT 1 FROM sessions
      WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
    )
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'expired', expires_at = now, expired_at = now,
    restorable_until = CASE
      WHEN :horizon > interval '0'
        THEN greatest(l.created_at + :horizon, now + :shortest_restore)
      ELSE now
    END
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'expired' AS kind, 'waiting' AS was, status AS became, now FROM done
),
counted AS {count_changes},
audited AS {audited}
SELECT * FROM done;

-- name: expire_due
-- Takes due rows that are not locked, so that sweeps and messages never wait for each other. The lock
-- re-checks the newest version of a row and keeps it until the UPDATE, which finds it by its address.
-- An address alone would also miss a row that a message has changed, because the changed row has
-- another one. The condition that the UPDATE repeats decides only if rows are found in another way:
-- by their keys and without the lock, a session would expire that a first message has just marked as
-- used.
-- A session that ADK's tables hold although its row waits (stock ADK created one of the same key)
-- is kept: Lapse never expires it. The limit stands in a sub-select, and the rows come as arrays,
-- so that every limit has the same plan, which finds the rows by their addresses.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT l.ctid, s.id IS NOT NULL AS is_stored
  FROM lapse_lobby AS l
  LEFT JOIN sessions AS s
    ON s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
  WHERE l.status = 'waiting' AND l.expires_at <= (SELECT now FROM clock)
    AND (:horizon > interval '0' OR NOT {is_braked})
  ORDER BY l.expires_at
  LIMIT (SELECT :limit)
  FOR UPDATE OF l SKIP LOCKED
),
done AS (
  UPDATE lapse_lobby AS l
  SET status = CASE WHEN is_stored THEN 'used' ELSE 'expired' END,
    first_message_at = CASE WHEN is_stored THEN now ELSE l.first_message_at END,
    expires_at = CASE WHEN NOT is_stored THEN l.expires_at END,
    expired_at = CASE WHEN NOT is_stored THEN now END,
    restorable_until = CASE
      WHEN is_stored THEN NULL
      WHEN :horizon > interval '0'
        THEN greatest(l.created_at + :horizon, now + :shortest_restore)
      ELSE now
    END,
    state = CASE WHEN NOT is_stored THEN l.state END,
    held_events = CASE WHEN NOT is_stored THEN l.held_events END
  FROM clock, unnest(
    (SELECT array_agg(ctid) FROM due), (SELECT array_agg(is_stored) FROM due)
  ) AS taken (ctid, is_stored)
  WHERE l.ctid = taken.ctid AND l.status = 'waiting' AND l.expires_at <= now
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, CASE status WHEN 'used' THEN 'kept' ELSE 'expired' END AS kind,
    'waiting' AS was, status AS became, now
  FROM done
),
counted AS {count_changes}
SELECT * FROM done;

-- name: purge_due
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT l.ctid FROM lapse_lobby AS l
  WHERE l.status = 'expired' AND l.restorable_until <= (SELECT now FROM clock)
    AND NOT {is_braked}
  ORDER BY l.restorable_until
  LIMIT :limit
  FOR UPDATE OF l SKIP LOCKED
),
ended AS (
  DELETE FROM lapse_lobby AS l
  USING due, clock
  WHERE l.ctid = due.ctid AND l.status = 'expired' AND l.restorable_until <= now
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'purged' AS kind, 'expired' AS was, '' AS became, now FROM ended
),
counted AS {count_changes},
observed AS (
  INSERT INTO lapse_observations (app_name, segment, outcome, created_at, observed_at, sessions)
  SELECT app_name, lapse_segment(metadata), 'unused',
    date_trunc('day', created_at, 'UTC') AS day, now, count(*)
  FROM ended GROUP BY app_name, lapse_segment(metadata), day, now
),
remembered AS (
  INSERT INTO lapse_purged (key_digest, app_name, segment, created_at, purged_at)
  SELECT sha256(convert_to(concat_ws(E'\x1f', app_name, user_id, session_id), 'UTF8')) AS digest,
    app_name, lapse_segment(metadata), created_at, now
  FROM ended ORDER BY digest
  ON CONFLICT (key_digest) DO UPDATE
  SET created_at = excluded.created_at, purged_at = excluded.purged_at
),
owed AS {owe_artifacts}
SELECT * FROM ended;

-- name: time_to_next
-- Counts only what a sweep may do: a brake holds purges and, if nothing is restorable, expiry, too.
SELECT least(
  (SELECT expires_at FROM lapse_lobby
   WHERE status = 'waiting' AND (:horizon > interval '0' OR NOT {is_braked})
   ORDER BY expires_at LIMIT 1),
  (SELECT restorable_until FROM lapse_lobby
   WHERE status = 'expired' AND NOT {is_braked} ORDER BY restorable_until LIMIT 1)
) - coalesce(:now, clock_timestamp()) AS ahead;

-- name: ping
-- An update in place needs no room on the disk. The rows that do not fit into work_mem do: they go to
-- a temporary file, unless a limit forbids one.
WITH little AS MATERIALIZED (SELECT set_config('work_mem', '64kB', true) AS work_mem),
spilled AS MATERIALIZED (
  SELECT count(*) AS numbers FROM little, generate_series(
    1, CASE WHEN current_setting('temp_file_limit') = '-1' THEN 8000 ELSE 0 END
  )
)
INSERT INTO lapse_pings (id, at)
SELECT 1, coalesce(:now, clock_timestamp()) FROM spilled
ON CONFLICT (id) DO UPDATE SET at = excluded.at;

-- name: read_ping
SELECT at, (SELECT count(*) FROM (SELECT 1 FROM lapse_lobby LIMIT 1) AS one) AS lobby
FROM lapse_pings;

-- name: status_before
-- No-op: the statements of the transitions read the status before themselves.

-- name: update_app_state
-- No-op: change_app_state is a part of the statements of the transitions.

-- name: update_user_state
-- No-op: change_user_state is a part of the statements of the transitions.

-- name: indexes
-- Like the next statement, it runs on a database of any version that nobody has opened. An index
-- whose concurrent creation failed is present but not valid: it costs each write and helps no read.
SELECT c.relname AS name, i.indisvalid AS valid
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE pg_table_is_visible(i.indrelid);

-- name: inspect_sessions
SELECT clock.now,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'waiting' AND expires_at <= clock.now LIMIT :most
  ) AS due) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby
    WHERE status = 'expired' AND restorable_until <= clock.now LIMIT :most
  ) AS due) AS purge,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby
    WHERE status = 'expired' AND first_message_at IS NOT NULL LIMIT :most
  ) AS wrong) AS used_but_expired
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock;
