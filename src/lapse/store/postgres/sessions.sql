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
-- :lock_place integer
-- :after, :event_time, :seen_create_time, :seen_time, :since timestamp
-- :now, :seen_created_at timestamptz
-- :after_app, :after_session, :after_user, :app_name, :event_id, :invocation_id varchar
-- :lock, :only_app, :seen_event, :session_id, :site, :used_by, :user_id varchar
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
    used_by = excluded.used_by, agent_spoke = false, mark = NULL, active_at = NULL,
    restored_at = NULL, pinned_at = NULL, warned_at = NULL, check_at = NULL
  WHERE :enforced
    AND (l.status = 'expired' OR l.status = 'waiting' AND l.expires_at <= excluded.created_at)
    AND l.status = (SELECT status FROM before) AND NOT {key_is_held}
  RETURNING created_at, ttl
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
  {new_deadline_told} AS notified
FROM done;

-- name: new_deadline_told
-- As near_deadline_told, of a session that was created now.
CASE WHEN ttl < interval '20 s' THEN pg_notify(
  'lapse_deadlines', extract(epoch FROM ttl)::text
)::text END;

-- name: untold
-- In place of both, if the server has no NOTIFY.
NULL::text;

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
-- ADK's tables come first: a lobby row never hides what they hold. The row of an archived session is
-- not that of one which stock ADK has made of its id since. The events of the window come
-- as one value, of four arrays in the form in which PostgreSQL sends them, the newest first: whoever
-- has seen the same value before need not read it. It is NULL if there are no events.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
found AS (
  SELECT s.state, s.update_time, coalesce(l.revision, 0) AS revision, NULL::jsonb AS held_events,
    false AS awaits_user, 1 AS place
  FROM sessions AS s
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
      AND l.status <> 'archived'
  WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
  UNION ALL
  SELECT l.state, l.update_time, l.revision, l.held_events, l.used_by = 'user', 2
  FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND (l.status = 'waiting' AND l.expires_at > now OR NOT :enforced AND {in_lobby})
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
      AND l.status <> 'archived'
  LEFT JOIN user_states AS u ON u.app_name = s.app_name AND u.user_id = s.user_id
  WHERE s.app_name = :app_name AND s.user_id = :user_id
  UNION ALL
  SELECT l.user_id, l.session_id, l.state, l.update_time, l.revision,
    (SELECT state FROM app_states WHERE app_name = :app_name), u.state
  FROM lapse_lobby AS l
  CROSS JOIN clock
  LEFT JOIN user_states AS u ON u.app_name = l.app_name AND u.user_id = l.user_id
  WHERE l.app_name = :app_name AND l.user_id = :user_id
    AND (l.status = 'waiting' AND l.expires_at > now OR NOT :enforced AND {in_lobby})
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
      AND l.status <> 'archived'
  LEFT JOIN user_states AS u ON u.app_name = s.app_name AND u.user_id = s.user_id
  WHERE s.app_name = :app_name
  UNION ALL
  SELECT l.user_id, l.session_id, l.state, l.update_time, l.revision,
    (SELECT state FROM app_states WHERE app_name = :app_name), u.state
  FROM lapse_lobby AS l
  CROSS JOIN clock
  LEFT JOIN user_states AS u ON u.app_name = l.app_name AND u.user_id = l.user_id
  WHERE l.app_name = :app_name
    AND (l.status = 'waiting' AND l.expires_at > now OR NOT :enforced AND {in_lobby})
    AND NOT EXISTS (
      SELECT 1 FROM sessions AS s
      WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
    )
) AS found
ORDER BY update_time, user_id COLLATE "C", session_id COLLATE "C";

-- name: read_user_state
SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id;
