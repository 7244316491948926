-- Runs on PostgreSQL. :stale is the age of a heartbeat from which on a run is interrupted.
-- Heartbeats do not wait for the disk: set_config turns synchronous_commit off for the one statement,
-- which is the transaction. Beginnings and notes do: a run goes on when its database crashes.
--
-- Types of parameters:
-- :max_per_user bigint
-- :stale interval
-- :error jsonb
-- :until timestamp
-- :run_id, :status varchar
-- :afters, :run_ids varchar[]

-- name: begin_run
-- A stale run of the session is interrupted, and the new run is inserted in the same statement. The
-- unique index of runs in flight accepts the new run because the join with `freed` makes the update
-- happen first.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
freed AS (
  UPDATE lapse_runs AS r SET status = 'interrupted', ended_at = r.heartbeat_at + :stale
  FROM clock
  WHERE r.app_name = :app_name AND r.user_id = :user_id AND r.session_id = :session_id
    AND r.status = 'running' AND r.heartbeat_at <= now - :stale
  RETURNING r.run_id
),
begun AS (
  INSERT INTO lapse_runs (
    run_id, app_name, user_id, session_id, status, started_at, heartbeat_at
  )
  SELECT :run_id, :app_name, :user_id, :session_id, 'running', now, now
  FROM clock, (SELECT count(*) FROM freed) AS freed_first
  WHERE (
    SELECT count(*) FROM lapse_runs AS r
    WHERE r.app_name = :app_name AND r.user_id = :user_id AND r.status = 'running'
      AND r.heartbeat_at > now - :stale
  ) < :max_per_user
  ON CONFLICT DO NOTHING
  RETURNING *
)
SELECT begun.*, now FROM begun, clock;

-- name: run_in_flight
-- Why a run could not begin: the run in flight, and the number of the user's runs. Neither may be
-- a reason any more if a run has ended since.
SELECT r.*, clock.now, (
    SELECT count(*) FROM lapse_runs AS u
    WHERE u.app_name = :app_name AND u.user_id = :user_id AND u.status = 'running'
      AND u.heartbeat_at > clock.now - :stale
  ) AS of_user
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock
LEFT JOIN lapse_runs AS r
  ON r.app_name = :app_name AND r.user_id = :user_id AND r.session_id = :session_id
  AND r.status = 'running';

-- name: note_run
UPDATE lapse_runs SET invocation_id = :invocation_id, since = :since
WHERE run_id = :run_id;

-- name: beat_runs
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
UPDATE lapse_runs AS r SET heartbeat_at = now
FROM clock, set_config('synchronous_commit', 'off', true) AS relaxed
WHERE r.run_id = ANY (:run_ids) AND r.status = 'running' AND r.heartbeat_at > now - :stale
RETURNING r.run_id, r.cancel_requested;

-- name: end_run
UPDATE lapse_runs AS r
SET status = :status, ended_at = coalesce(:now, clock_timestamp()), error = :error,
  until = :until
WHERE r.run_id = :run_id AND r.status = 'running'
RETURNING r.run_id;

-- name: cancel_run
UPDATE lapse_runs AS r SET cancel_requested = true
WHERE r.run_id = :run_id AND r.status = 'running'
  AND r.app_name = :app_name AND r.user_id = :user_id AND r.session_id = :session_id;

-- name: find_run
-- A session's run by its id, by an event of its agent or by both; without either, the latest. Runs
-- that resume one invocation share its id; the timestamps of their events tell them apart.
SELECT r.*, coalesce(:now, clock_timestamp()) AS now FROM lapse_runs AS r
WHERE r.app_name = :app_name AND r.user_id = :user_id AND r.session_id = :session_id
  AND (:run_id IS NULL OR r.run_id = :run_id)
  AND (:event_id IS NULL OR EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.id = :event_id AND e.app_name = r.app_name AND e.user_id = r.user_id
      AND e.session_id = r.session_id AND e.invocation_id = r.invocation_id
      AND e.timestamp >= r.since AND (r.until IS NULL OR e.timestamp <= r.until)
      AND e.event_data ->> 'author' <> 'user'
  ))
ORDER BY r.started_at DESC LIMIT 1;

-- name: runs_of_session
-- The latest first. It is for sessions whose events another service has.
SELECT r.*, coalesce(:now, clock_timestamp()) AS now FROM lapse_runs AS r
WHERE r.app_name = :app_name AND r.user_id = :user_id AND r.session_id = :session_id
ORDER BY r.started_at DESC;

-- name: run_of_request
-- A run of a request with an idempotency key, and what is stored of it: the message that the request
-- brought, and whether the agent has said anything in the run.
SELECT r.*, coalesce(:now, clock_timestamp()) AS now, m.id IS NOT NULL AS is_stored,
  CASE WHEN NOT EXISTS (
    SELECT 1 FROM events AS u
    WHERE u.app_name = r.app_name AND u.user_id = r.user_id AND u.session_id = r.session_id
      AND u.invocation_id = m.invocation_id AND u.timestamp < m.timestamp
      AND u.event_data ->> 'author' = 'user'
  ) THEN m.invocation_id END AS opened_invocation,
  EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.app_name = r.app_name AND e.user_id = r.user_id AND e.session_id = r.session_id
      AND e.invocation_id = r.invocation_id
      AND e.timestamp >= r.since AND (r.until IS NULL OR e.timestamp <= r.until)
      AND e.event_data ->> 'author' <> 'user'
  ) AS has_spoken
FROM lapse_runs AS r
LEFT JOIN events AS m
  ON m.id = :event_id AND m.app_name = r.app_name AND m.user_id = r.user_id
  AND m.session_id = r.session_id
WHERE r.run_id = :run_id
  AND r.app_name = :app_name AND r.user_id = :user_id AND r.session_id = :session_id;

-- name: run_news
-- The agent's events in each of some runs, after one of its events; users' messages are not part of a
-- stream. Within a run, events are stored in the order of their timestamps. A run without such events
-- has one row, without an event.
SELECT r.*, coalesce(:now, clock_timestamp()) AS now, e.id AS event_id,
  e.invocation_id AS event_invocation, e.timestamp AS event_time, e.event_data AS event_data
FROM unnest(:run_ids, :afters) AS asked (run_id, after)
JOIN lapse_runs AS r ON r.run_id = asked.run_id
LEFT JOIN LATERAL (
  SELECT e.id, e.invocation_id, e.timestamp, e.event_data::text FROM events AS e
  WHERE e.app_name = r.app_name AND e.user_id = r.user_id AND e.session_id = r.session_id
    AND e.invocation_id = r.invocation_id
    AND e.timestamp >= r.since AND (r.until IS NULL OR e.timestamp <= r.until)
    AND e.timestamp > coalesce((
      SELECT s.timestamp FROM events AS s
      WHERE s.id = asked.after AND s.app_name = r.app_name AND s.user_id = r.user_id
        AND s.session_id = r.session_id
    ), '-infinity')
    AND e.event_data ->> 'author' <> 'user'
  ORDER BY e.timestamp, e.id LIMIT :limit
) AS e ON true
ORDER BY r.run_id, e.timestamp, e.id;

-- name: forget_runs
DELETE FROM lapse_runs AS r USING (
  SELECT run_id FROM lapse_runs
  WHERE ended_at <= (SELECT coalesce(:now, clock_timestamp())) - :kept
  LIMIT :limit FOR UPDATE SKIP LOCKED
) AS old
WHERE r.run_id = old.run_id AND r.ended_at IS NOT NULL
RETURNING r.run_id;

-- name: delete_runs
DELETE FROM lapse_runs
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;
