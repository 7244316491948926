-- What is still remembered of purged sessions, and is to be forgotten: some events in each row, as a JSON
-- array of their ids. The transaction of a purge writes it, because the ids are gone with the session. It
-- is a table of its own: the rows of lapse_artifact_outbox have no ids, hold up a new session of their
-- key, and are taken by other processes, at the pauses of another service.
CREATE TABLE lapse_memory_outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  app_name VARCHAR(128) NOT NULL,
  user_id VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  event_ids TEXT NOT NULL,
  due_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX lapse_memory_outbox_due ON lapse_memory_outbox (due_at);
