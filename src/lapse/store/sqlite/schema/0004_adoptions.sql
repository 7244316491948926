-- What adoption has taken from ADK's tables, and the outbox of artifacts that are to be deleted.

CREATE TABLE lapse_adoptions (
  run VARCHAR(128) PRIMARY KEY,
  began_at INTEGER NOT NULL,
  sessions INTEGER NOT NULL
);

-- One row for each adopted session, deleted with its lobby row. The lobby row holds the session
-- exactly, except that it keeps the time of creation as a number; create_time is ADK's text.
CREATE TABLE lapse_adopted (
  app_name VARCHAR(128) NOT NULL,
  user_id VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  run VARCHAR(128) NOT NULL,
  create_time DATETIME NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (app_name, user_id, session_id),
  FOREIGN KEY (app_name, user_id, session_id)
    REFERENCES lapse_lobby (app_name, user_id, session_id) ON DELETE CASCADE
);
CREATE INDEX lapse_adopted_run ON lapse_adopted (run, app_name, user_id, session_id);

CREATE TABLE lapse_artifact_outbox (
  app_name VARCHAR(128) NOT NULL,
  user_id VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  ended_at INTEGER NOT NULL,
  due_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (app_name, user_id, session_id)
);
CREATE INDEX lapse_artifact_outbox_due ON lapse_artifact_outbox (due_at);
