-- Retention. active_at: when Lapse last stored an event of a used session, or restored it. check_at: when
-- a sweep looks at the session next; it moves only when one does, so that a message writes no index.
-- restored_at, pinned_at, archived_at and warned_at (of a coming archive) tell what happened when.
ALTER TABLE lapse_lobby ADD COLUMN active_at INTEGER;
ALTER TABLE lapse_lobby ADD COLUMN restored_at INTEGER;
ALTER TABLE lapse_lobby ADD COLUMN archived_at INTEGER;
ALTER TABLE lapse_lobby ADD COLUMN pinned_at INTEGER;
ALTER TABLE lapse_lobby ADD COLUMN warned_at INTEGER;
ALTER TABLE lapse_lobby ADD COLUMN check_at INTEGER;

-- As in 0013: SQLite cannot change a CHECK, and its own documentation says to relax one like this.
PRAGMA writable_schema = ON;
UPDATE sqlite_master SET sql = replace(
  sql,
  'CHECK (status IN (''waiting'', ''used'', ''expired'', ''moving'', ''elsewhere'', ''deleting''))',
  'CHECK (status IN (''waiting'', ''used'', ''expired'', ''moving'', ''elsewhere'', ''deleting'', ''archived''))'
)
WHERE type = 'table' AND name = 'lapse_lobby';
PRAGMA writable_schema = RESET;

-- Empty until a policy is confirmed.
CREATE INDEX lapse_lobby_check ON lapse_lobby (check_at) WHERE check_at IS NOT NULL;

-- An archived session, which its lobby row goes with. content is all that ADK's tables held of it,
-- compressed; the other columns tell a writer whether the session is as it was seen.
CREATE TABLE lapse_archive (
  app_name VARCHAR(128) NOT NULL,
  user_id VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  update_time DATETIME NOT NULL,
  newest_event VARCHAR(128),
  events INTEGER NOT NULL,
  content BLOB NOT NULL,
  PRIMARY KEY (app_name, user_id, session_id)
);

-- An empty session_id holds all sessions of the user, an empty app_name those of all apps.
CREATE TABLE lapse_holds (
  user_id VARCHAR(128) NOT NULL,
  app_name VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  since INTEGER NOT NULL,
  principal TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (user_id, app_name, session_id)
) WITHOUT ROWID;

-- The confirmed policy, and how far the scan has come that looks for sessions without a check_at.
CREATE TABLE lapse_retention (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  digest TEXT NOT NULL,
  policy TEXT NOT NULL,
  confirmed_at INTEGER NOT NULL,
  principal TEXT NOT NULL,
  scan_at INTEGER,
  after_app VARCHAR(128) NOT NULL DEFAULT '',
  after_user VARCHAR(128) NOT NULL DEFAULT '',
  after_session VARCHAR(128) NOT NULL DEFAULT ''
);
