-- The processes that serve or sweep, each with the time at which it last reported. Times are in
-- microseconds since the epoch.

CREATE TABLE lapse_processes (
  process VARCHAR(32) PRIMARY KEY,
  host VARCHAR(64) NOT NULL,
  pid INTEGER NOT NULL,
  program VARCHAR(64) NOT NULL,
  version VARCHAR(32) NOT NULL,
  sweeps INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL
);

-- It has no rows: a used session is never expired. So the operators' overview, which alarms if one
-- is, need not read the expired sessions.
CREATE INDEX lapse_lobby_used_expired ON lapse_lobby (app_name)
  WHERE status = 'expired' AND first_message_at IS NOT NULL;
