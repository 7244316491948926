-- Runs that outlive their connection: one row for each, kept until a day after its end. Times are
-- microseconds since the epoch; since and until are texts, as ADK writes them, because they are
-- compared with the timestamps of events. error is JSON.

CREATE TABLE lapse_runs (
  run_id VARCHAR(128) PRIMARY KEY,
  app_name VARCHAR(128) NOT NULL,
  user_id VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  status TEXT NOT NULL
    CHECK (status IN ('running', 'done', 'failed', 'cancelled', 'timed_out', 'interrupted')),
  started_at INTEGER NOT NULL,
  heartbeat_at INTEGER NOT NULL,
  ended_at INTEGER CHECK ((ended_at IS NULL) = (status = 'running')),
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  invocation_id VARCHAR(256),
  since DATETIME,
  until DATETIME,
  error TEXT
);

-- A session has at most one run in flight.
CREATE UNIQUE INDEX lapse_runs_in_flight ON lapse_runs (app_name, user_id, session_id)
  WHERE status = 'running';

CREATE INDEX lapse_runs_of_session ON lapse_runs (app_name, user_id, session_id, started_at);

CREATE INDEX lapse_runs_ended ON lapse_runs (ended_at) WHERE ended_at IS NOT NULL;
