-- The lobby: one row for each session that Lapse created, from its creation to its end.
-- Times are microseconds since the epoch, UTC; only update_time is a text, as ADK writes it,
-- because it moves to ADK's column. state and held_events exist only until the first message.

CREATE TABLE lapse_schema (
  version INTEGER PRIMARY KEY,
  applied_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE lapse_lobby (
  app_name VARCHAR(128) NOT NULL,
  user_id VARCHAR(128) NOT NULL,
  session_id VARCHAR(128) NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('waiting', 'used', 'expired')),
  created_at INTEGER NOT NULL,
  ttl INTEGER NOT NULL,
  expires_at INTEGER CHECK (expires_at IS NOT NULL OR status = 'used'),
  first_message_at INTEGER CHECK (first_message_at IS NOT NULL OR status <> 'used'),
  expired_at INTEGER,
  restorable_until INTEGER CHECK (restorable_until IS NOT NULL OR status <> 'expired'),
  resurrections INTEGER NOT NULL DEFAULT 0,
  metadata TEXT NOT NULL DEFAULT '{}',
  state TEXT CHECK (state IS NOT NULL OR status = 'used'),
  held_events TEXT CHECK (held_events IS NOT NULL OR status = 'used'),
  update_time DATETIME NOT NULL,
  revision INTEGER NOT NULL DEFAULT 0,
  used_id VARCHAR(128) GENERATED ALWAYS AS (CASE status WHEN 'used' THEN session_id END) VIRTUAL,
  PRIMARY KEY (app_name, user_id, session_id),
  -- Whoever deletes a used session from ADK's tables, its record is deleted, too. Deferred,
  -- because the first message marks the record before it moves the session.
  FOREIGN KEY (app_name, user_id, used_id) REFERENCES sessions (app_name, user_id, id)
    ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

-- Partial, so that the cost of a sweep depends on what is due and not on what is stored.
CREATE INDEX lapse_lobby_deadline ON lapse_lobby (expires_at) WHERE status = 'waiting';
CREATE INDEX lapse_lobby_purge ON lapse_lobby (restorable_until) WHERE status = 'expired';

-- For the foreign key's cascade.
CREATE INDEX lapse_lobby_used ON lapse_lobby (app_name, user_id, used_id) WHERE used_id IS NOT NULL;
