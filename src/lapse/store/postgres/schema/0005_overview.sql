-- What operators look at. The transaction of a change also counts it; the fold moves the counts of
-- past buckets into levels and into the history of each app, exactly once.

-- Sharded, so that two connections do not wait for each other's counter. The fillfactor leaves room
-- on each page, so that rows are updated in place.
CREATE TABLE lapse_counts (
  app_name VARCHAR(128) NOT NULL,
  at TIMESTAMP WITH TIME ZONE NOT NULL,
  kind TEXT NOT NULL, -- '' if only the levels move
  was TEXT NOT NULL, -- the status as stored before, '' if there was no row
  became TEXT NOT NULL,
  shard INTEGER NOT NULL,
  sessions BIGINT NOT NULL,
  PRIMARY KEY (app_name, at, kind, was, became, shard)
) WITH (fillfactor = 25);

CREATE TABLE lapse_counted (
  at TIMESTAMP WITH TIME ZONE NOT NULL,
  app_name VARCHAR(128) NOT NULL,
  kind TEXT NOT NULL,
  sessions BIGINT NOT NULL,
  PRIMARY KEY (at, app_name, kind)
);

-- How many sessions of each app have each status; the changes in lapse_counts are not in it yet.
CREATE TABLE lapse_levels (
  app_name VARCHAR(128) NOT NULL,
  status TEXT NOT NULL,
  sessions BIGINT NOT NULL,
  PRIMARY KEY (app_name, status)
);

LOCK TABLE lapse_lobby IN SHARE ROW EXCLUSIVE MODE;

INSERT INTO lapse_levels (app_name, status, sessions)
SELECT app_name, status, count(*) FROM lapse_lobby GROUP BY app_name, status;

-- Anybody may delete a used session from ADK's tables; the foreign key's cascade deletes its
-- record. Every delete of a used session is counted here and nowhere else.
CREATE FUNCTION lapse_count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO lapse_counts AS c (app_name, at, kind, was, became, shard, sessions)
  VALUES (
    OLD.app_name, date_bin('5 minutes', clock_timestamp(), 'epoch'), 'deleted', 'used', '',
    pg_backend_pid() % 32, 1
  )
  ON CONFLICT ON CONSTRAINT lapse_counts_pkey DO UPDATE SET sessions = c.sessions + 1;
  RETURN NULL;
END
$$;

CREATE TRIGGER lapse_lobby_used_deleted AFTER DELETE ON lapse_lobby
  FOR EACH ROW WHEN (OLD.status = 'used') EXECUTE FUNCTION lapse_count_deleted();

-- Operators look for a session by the beginning of its id, which is all that a log shows.
CREATE INDEX lapse_lobby_id ON lapse_lobby (session_id COLLATE "C", app_name, user_id);

CREATE TABLE lapse_sweeps (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  swept_at TIMESTAMP WITH TIME ZONE NOT NULL
);

-- The brake of the sweepers: set while released_at is null.
CREATE TABLE lapse_brakes (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  reason TEXT NOT NULL,
  since TIMESTAMP WITH TIME ZONE NOT NULL,
  until TIMESTAMP WITH TIME ZONE NOT NULL,
  sessions BIGINT NOT NULL,
  jump INTERVAL NOT NULL,
  released_at TIMESTAMP WITH TIME ZONE
);
