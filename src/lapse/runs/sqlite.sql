-- Runs on SQLite. :stale is the age of a heartbeat from which on a run is interrupted.
--
-- Types of parameters and columns:
-- :started_at, :heartbeat_at, :ended_at moment
-- :since, :until adk_time

-- name: begin_run
-- A stale run of the session is interrupted; then the new run is inserted.
UPDATE lapse_runs SET status = 'interrupted', ended_at = heartbeat_at + :stale
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'running' AND heartbeat_at <= :now - :stale;
INSERT INTO lapse_runs (
  run_id, app_name, user_id, session_id, status, started_at, heartbeat_at
)
SELECT :run_id, :app_name, :user_id, :session_id, 'running', :now, :now
WHERE (
  SELECT count(*) FROM lapse_runs
  WHERE app_name = :app_name AND user_id = :user_id AND status = 'running'
    AND heartbeat_at > :now - :stale
) < :max_per_user
ON CONFLICT DO NOTHING
RETURNING *;

-- name: run_in_flight
-- Why a run could not begin: the run in flight, and the number of the user's runs. There is always
-- one row.
SELECT r.*, (
    SELECT count(*) FROM lapse_runs
    WHERE app_name = :app_name AND user_id = :user_id AND status = 'running'
      AND heartbeat_at > :now - :stale
  ) AS of_user
FROM (SELECT 1)
LEFT JOIN lapse_runs AS r
  ON r.app_name = :app_name AND r.user_id = :user_id AND r.session_id = :session_id
  AND r.status = 'running';

-- name: note_run
UPDATE lapse_runs SET invocation_id = :invocation_id, since = :since WHERE run_id = :run_id;

-- name: beat_runs
UPDATE lapse_runs SET heartbeat_at = :now
WHERE run_id IN (SELECT value FROM json_each(:run_ids)) AND status = 'running'
  AND heartbeat_at > :now - :stale
RETURNING run_id, cancel_requested;

-- name: end_run
UPDATE lapse_runs SET status = :status, ended_at = :now, error = :error, until = :until
WHERE run_id = :run_id AND status = 'running'
RETURNING run_id;

-- name: cancel_run
UPDATE lapse_runs SET cancel_requested = 1
WHERE run_id = :run_id AND status = 'running'
  AND app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: find_run
-- A session's run by its id, by an event of its agent or by both; without either, the latest. Runs
-- that resume one invocation share its id; the timestamps of their events tell them apart.
SELECT r.* FROM lapse_runs AS r
WHERE r.app_name = :app_name AND r.user_id = :user_id AND r.session_id = :session_id
  AND (:run_id IS NULL OR r.run_id = :run_id)
  AND (:event_id IS NULL OR EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.id = :event_id AND e.app_name = r.app_name AND e.user_id = r.user_id
      AND e.session_id = r.session_id AND e.invocation_id = r.invocation_id
      AND e.timestamp >= r.since AND (r.until IS NULL OR e.timestamp <= r.until)
      AND e.event_data ->> 'author' <> 'user'
  ))
ORDER BY r.started_at DESC, r.rowid DESC LIMIT 1;

-- name: runs_of_session
-- The latest first. It is for sessions whose events another service has.
SELECT r.* FROM lapse_runs AS r
WHERE r.app_name = :app_name AND r.user_id = :user_id AND r.session_id = :session_id
ORDER BY r.started_at DESC, r.rowid DESC;

-- name: run_of_request
-- A run of a request with an idempotency key, and what is stored of it: the message that the request
-- brought, and whether the agent has said anything in the run.
SELECT r.*, m.id IS NOT NULL AS is_stored,
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

-- name: read_run
SELECT * FROM lapse_runs WHERE run_id = :run_id;

-- name: read_run_events
-- The agent's events in one run, after one of its events; users' messages are not part of a stream.
-- Within a run, events are stored in the order of their timestamps.
SELECT e.id AS event_id, e.invocation_id AS event_invocation, e.timestamp AS event_time,
  e.event_data
FROM lapse_runs AS r
JOIN events AS e
  ON e.app_name = r.app_name AND e.user_id = r.user_id AND e.session_id = r.session_id
WHERE r.run_id = :run_id AND e.invocation_id = r.invocation_id
  AND e.timestamp >= r.since AND (r.until IS NULL OR e.timestamp <= r.until)
  AND e.timestamp > coalesce((
    SELECT timestamp FROM events
    WHERE id = :event_id AND app_name = r.app_name AND user_id = r.user_id
      AND session_id = r.session_id
  ), '')
  AND e.event_data ->> 'author' <> 'user'
ORDER BY e.timestamp, e.id LIMIT :limit;

-- name: forget_runs
DELETE FROM lapse_runs WHERE rowid IN (
  SELECT rowid FROM lapse_runs WHERE ended_at <= :now - :kept LIMIT :limit
)
RETURNING run_id;

-- name: delete_runs
DELETE FROM lapse_runs
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;
