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
  CASE WHEN ttl < interval '20 s' THEN pg_notify(
    'lapse_deadlines', extract(epoch FROM ttl)::text
  )::text END AS notified
FROM done;
