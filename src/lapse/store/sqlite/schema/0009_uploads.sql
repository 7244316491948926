-- The artifacts that requests have saved, by which the quota counts: one row for each version, as
-- long as the version is kept. session_id is empty for an artifact of the user, which all sessions
-- share. artifact is a digest of the name.

CREATE TABLE lapse_uploads (
  upload VARCHAR(32) PRIMARY KEY,
  user_id VARCHAR(128) NOT NULL,
  app_name VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  artifact VARCHAR(32) NOT NULL,
  bytes INTEGER NOT NULL,
  taken_at INTEGER NOT NULL,
  is_saved INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX lapse_uploads_user ON lapse_uploads (user_id, app_name, session_id, artifact);
