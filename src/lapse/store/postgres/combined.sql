-- Statements that do at once what many callers ask for: `create_many` does the work of `create`.
--
-- Here a parameter that is not the moment or a rule of the store is a column of the item `a`. A
-- statement does all that is asked for a session, or nothing, and returns a row with the key of each
-- session for which it did it. The statement for one session does the rest, and says why it cannot.
-- So these do nothing where a row is locked or in the way, and they change no app or user state.
-- What other transactions hold up for longer than a moment is left to the statements for one, too.

-- name: items
-- What is asked for: one row for each session, in the order of the keys. The condition is always
-- true. It makes PostgreSQL expect one row, and so find each session by its key, whatever it
-- believes about the sizes of tables.
SELECT * FROM unnest(@arrays) AS i (@columns) WHERE i.session_id || '' = i.session_id;

-- name: bounded_clock
SELECT coalesce(:now, clock_timestamp()) AS now, set_config('lock_timeout', '100ms', true) AS bound;

-- name: create_many
-- Leaves every row alone that has one of the keys: only `create` may replace it. The sub-select looks
-- for each session by its key; NOT EXISTS could be planned as a scan of the table.
WITH clock AS MATERIALIZED {bounded_clock},
asked AS MATERIALIZED {items},
done AS (
  INSERT INTO lapse_lobby (
    app_name, user_id, session_id, status, created_at, ttl, expires_at, metadata, state,
    held_events, update_time, site, used_by
  )
  SELECT
    :app_name, :user_id, :session_id, 'waiting', now, :ttl, now + :ttl,
    :metadata, :state, '[]', now AT TIME ZONE 'UTC', :site, :used_by
  FROM clock, asked AS a
  WHERE (
    SELECT s.id FROM sessions AS s
    WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
  ) IS NULL
  ON CONFLICT (app_name, user_id, session_id) DO NOTHING
  RETURNING app_name, user_id, session_id, created_at, ttl
),
changes AS (
  SELECT app_name, 'created' AS kind, '' AS was, 'waiting' AS became, created_at AS now FROM done
),
counted AS {count_changes}
SELECT
  app_name, user_id, session_id, created_at AS now,
  (
    SELECT o.session_id FROM lapse_artifact_outbox AS o
    WHERE o.app_name = done.app_name AND o.user_id = done.user_id
      AND o.session_id = done.session_id
  ) IS NOT NULL AS owes_artifacts,
  (SELECT s.state FROM app_states AS s WHERE s.app_name = done.app_name) AS app_state,
  (
    SELECT s.state FROM user_states AS s
    WHERE s.app_name = done.app_name AND s.user_id = done.user_id
  ) AS user_state,
  {new_deadline_told} AS notified
FROM done;

-- name: first_message_many
-- The rows are found by their addresses. One that a transaction has changed since the statement began
-- has another address, and is left alone.
WITH clock AS MATERIALIZED {bounded_clock},
asked AS MATERIALIZED {items},
taken AS MATERIALIZED (
  SELECT :event_id, :invocation_id, :event_time, :event_data, :session_delta, :in_control, l.*
  FROM clock, asked AS a, LATERAL (
    SELECT l.ctid AS place, now, l.status AS was, l.state AS held_state, l.held_events AS held,
      l.status = 'expired' OR :enforced AND l.expires_at <= now AS was_expired
    FROM lapse_lobby AS l
    WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
      AND {may_be_used}
    FOR UPDATE OF l SKIP LOCKED
  ) AS l
),
marked AS (
  UPDATE lapse_lobby AS l
  SET status = 'used', first_message_at = taken.now, revision = l.revision + 1,
    resurrections = l.resurrections + taken.was_expired::int, expires_at = NULL,
    expired_at = NULL, restorable_until = NULL, state = NULL, held_events = NULL,
    site = NULL
  FROM taken WHERE l.ctid = taken.place
  RETURNING l.*, taken.*
),
changes AS {changes_of_used},
counted AS {count_changes},
moved AS {move_used},
observed AS {observe_used},
stored AS {store_events_of_used},
app_rows AS (
  -- ADK refuses to append without these rows. Where several sessions need the same one, it is
  -- inserted once; the order keeps two batches from waiting for each other.
  INSERT INTO app_states (app_name, state, update_time)
  SELECT DISTINCT app_name, '{}'::jsonb, now() AT TIME ZONE 'UTC'
  FROM marked WHERE (
    SELECT s.app_name FROM app_states AS s WHERE s.app_name = marked.app_name
  ) IS NULL
  ORDER BY app_name
  ON CONFLICT DO NOTHING
),
user_rows AS (
  INSERT INTO user_states (app_name, user_id, state, update_time)
  SELECT DISTINCT app_name, user_id, '{}'::jsonb, now() AT TIME ZONE 'UTC'
  FROM marked WHERE (
    SELECT s.user_id FROM user_states AS s
    WHERE s.app_name = marked.app_name AND s.user_id = marked.user_id
  ) IS NULL
  ORDER BY app_name, user_id
  ON CONFLICT DO NOTHING
)
SELECT app_name, user_id, session_id, status, created_at, ttl, expires_at, first_message_at,
  expired_at, restorable_until, resurrections, metadata, used_by, agent_spoke, archived_at,
  pinned_at, revision,
  now,
  was_expired
FROM marked;

-- name: append_many
-- Only for sessions with a record, which is locked first, as `append` does. A record that has changed
-- since the statement began has another address, and nothing is done; then the session's row is found
-- by its key, so that whoever is counted is stored, too.
WITH clock AS MATERIALIZED {bounded_clock},
asked AS MATERIALIZED {items},
taken AS MATERIALIZED (
  SELECT :app_name, :user_id, :session_id, :event_id, :invocation_id, :event_time, :event_data,
    :session_delta, l.place
  FROM clock, asked AS a, LATERAL (
    SELECT l.ctid AS place FROM lapse_lobby AS l
    WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
      AND l.status <> 'archived'
      AND (:seen_number IS NULL OR l.revision = :seen_number)
      AND {event_is_new}
    FOR UPDATE OF l SKIP LOCKED
  ) AS l, LATERAL (
    SELECT s.id FROM sessions AS s
    WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
      AND {is_as_seen}
    FOR UPDATE OF s SKIP LOCKED
  ) AS s
),
counted AS (
  UPDATE lapse_lobby AS l
  SET revision = l.revision + 1, active_at = coalesce(:now, clock_timestamp())
  FROM taken WHERE l.ctid = taken.place
  RETURNING taken.*, l.revision
),
done AS (
  UPDATE sessions AS s
  SET update_time = c.event_time, state = s.state || coalesce(c.session_delta, '{}')
  FROM counted AS c
  WHERE s.app_name = c.app_name AND s.user_id = c.user_id AND s.id = c.session_id
  RETURNING c.*
),
stored AS (
  INSERT INTO events (
    id, app_name, user_id, session_id, invocation_id, timestamp, event_data
  )
  SELECT event_id, app_name, user_id, session_id, invocation_id, event_time, event_data FROM done
)
SELECT app_name, user_id, session_id, revision FROM done;
