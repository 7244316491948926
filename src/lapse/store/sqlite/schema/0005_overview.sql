-- What operators look at. The transaction of a change also counts it; the fold moves the counts of
-- past buckets into levels and into the history of each app, exactly once.

CREATE TABLE lapse_counts (
  app_name VARCHAR(128) NOT NULL,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL, -- '' if only the levels move
  was TEXT NOT NULL, -- the status as stored before, '' if there was no row
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

-- How many sessions of each app have each status; the changes in lapse_counts are not in it yet.
CREATE TABLE lapse_levels (
  app_name VARCHAR(128) NOT NULL,
  status TEXT NOT NULL,
  sessions INTEGER NOT NULL,
  PRIMARY KEY (app_name, status)
) WITHOUT ROWID;

INSERT INTO lapse_levels (app_name, status, sessions)
SELECT app_name, status, count(*) FROM lapse_lobby GROUP BY app_name, status;

-- Anybody may delete a used session from ADK's tables; the foreign key's cascade deletes its
-- record. Every delete of a used session is counted here and nowhere else.
CREATE TRIGGER lapse_lobby_used_deleted AFTER DELETE ON lapse_lobby WHEN OLD.status = 'used'
BEGIN
  INSERT INTO lapse_counts (app_name, at, kind, was, became, sessions)
  VALUES (
    OLD.app_name, CAST(strftime('%s', 'now') AS INTEGER) / 300 * 300000000, 'deleted', 'used', '', 1
  )
  ON CONFLICT (app_name, at, kind, was, became) DO UPDATE SET sessions = sessions + 1;
END;

-- Operators look for a session by the beginning of its id, which is all that a log shows.
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
