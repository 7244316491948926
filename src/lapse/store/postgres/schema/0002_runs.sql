-- Runs that outlive their connection: one row for each, kept until a day after its end. since and
-- until are naive UTC, because they are compared with the timestamps of ADK's events.

CREATE TABLE lapse_runs (
  run_id VARCHAR(128) PRIMARY KEY,
  app_name VARCHAR(128) NOT NULL,
  user_id VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  status TEXT NOT NULL
    CHECK (status IN ('running', 'done', 'failed', 'cancelled', 'timed_out', 'interrupted')),
  started_at TIMESTAMP WITH TIME ZONE NOT NULL,
  heartbeat_at TIMESTAMP WITH TIME ZONE NOT NULL,
  ended_at TIMESTAMP WITH TIME ZONE CHECK ((ended_at IS NULL) = (status = 'running')),
  cancel_requested BOOLEAN NOT NULL DEFAULT false,
  invocation_id VARCHAR(256),
  since TIMESTAMP WITHOUT TIME ZONE,
  until TIMESTAMP WITHOUT TIME ZONE,
  error JSONB
);

-- A session has at most one run in flight.
CREATE UNIQUE INDEX lapse_runs_in_flight ON lapse_runs (app_name, user_id, session_id)
  WHERE status = 'running';

CREATE INDEX lapse_runs_of_session ON lapse_runs (app_name, user_id, session_id, started_at);

CREATE INDEX lapse_runs_ended ON lapse_runs (ended_at) WHERE ended_at IS NOT NULL;
