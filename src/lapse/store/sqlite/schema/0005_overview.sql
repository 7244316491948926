-- What operators look at. Every change is counted in its own transaction; the fold moves counts
-- of buckets that are over into levels and into the history of each app, exactly once.

CREATE TABLE lapse_counts (
  app_name VARCHAR(128) NOT NULL,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL, -- '' where only the levels move
  was TEXT NOT NULL, -- the status as stored before, '' for none
  became TEXT NOT NULL,
  sessions INTEGER NOT NULL,
  PRIMARY KEY (app_name, at, kind, was, became)
) WITHOUT ROWID;

CREATE TABLE lapse_counted (
  at INTEGER NOT NULL,
  app_name VARCHAR(128) NOT NULL,
  kind TEXT NOT NULL,
  sessions INTEGER NOT NULL,
  PRIMARY KEY (at, app_name, kind)
) WITHOUT ROWID;

-- How many sessions of each app have each status, but for what lapse_counts still holds.
CREATE TABLE lapse_levels (
  app_name VARCHAR(128) NOT NULL,
  status TEXT NOT NULL,
  sessions INTEGER NOT NULL,
  PRIMARY KEY (app_name, status)
) WITHOUT ROWID;

INSERT INTO lapse_levels (app_name, status, sessions)
SELECT app_name, status, count(*) FROM lapse_lobby GROUP BY app_name, status;

-- A used session may be deleted by anybody who deletes it in ADK's tables; its record goes by the
-- foreign key's cascade. Whoever deletes it, it is counted here and nowhere else.
CREATE TRIGGER lapse_lobby_used_deleted AFTER DELETE ON lapse_lobby WHEN OLD.status = 'used'
BEGIN
  INSERT INTO lapse_counts (app_name, at, kind, was, became, sessions)
  VALUES (
    OLD.app_name, CAST(strftime('%s', 'now') AS INTEGER) / 300 * 300000000, 'deleted', 'used', '', 1
  )
  ON CONFLICT (app_name, at, kind, was, became) DO UPDATE SET sessions = sessions + 1;
END;

-- An operator knows the beginning of an id, from a line of the log.
CREATE INDEX lapse_lobby_id ON lapse_lobby (session_id, app_name, user_id);

CREATE TABLE lapse_sweeps (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  swept_at INTEGER NOT NULL
);

-- The brake of the sweepers: set while released_at is null.
CREATE TABLE lapse_brakes (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  reason TEXT NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER NOT NULL,
  sessions INTEGER NOT NULL,
  jump INTEGER NOT NULL,
  released_at INTEGER
);
