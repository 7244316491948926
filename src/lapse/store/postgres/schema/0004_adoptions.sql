-- What adoption has taken from ADK's tables, and the outbox of artifacts that are to be deleted.

CREATE TABLE lapse_adoptions (
  run VARCHAR(128) PRIMARY KEY,
  began_at TIMESTAMP WITH TIME ZONE NOT NULL,
  sessions BIGINT NOT NULL
);

-- One row for each adopted session, deleted with its lobby row, which holds the session exactly.
CREATE TABLE lapse_adopted (
  app_name VARCHAR(128) NOT NULL,
  user_id VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  run VARCHAR(128) NOT NULL,
  create_time TIMESTAMP WITHOUT TIME ZONE NOT NULL,
  PRIMARY KEY (app_name, user_id, session_id),
  FOREIGN KEY (app_name, user_id, session_id)
    REFERENCES lapse_lobby (app_name, user_id, session_id) ON DELETE CASCADE
);
CREATE INDEX lapse_adopted_run ON lapse_adopted (run, app_name, user_id, session_id);

CREATE TABLE lapse_artifact_outbox (
  app_name VARCHAR(128) NOT NULL,
  user_id VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  ended_at TIMESTAMP WITH TIME ZONE NOT NULL,
  due_at TIMESTAMP WITH TIME ZONE NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (app_name, user_id, session_id)
);
CREATE INDEX lapse_artifact_outbox_due ON lapse_artifact_outbox (due_at);
