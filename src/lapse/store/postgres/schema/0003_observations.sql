-- What is observed of sessions, and the TTLs that are decided from it. Each observation is a row,
-- so that no transaction waits for another's counter; the rows of a complete day are folded into
-- counts.

CREATE FUNCTION lapse_segment(metadata JSONB) RETURNS TEXT LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN jsonb_typeof(metadata -> 'segment') = 'string' AND length(metadata ->> 'segment') <= 32
    THEN metadata ->> 'segment' ELSE ''
  END
$$;

CREATE TABLE lapse_observations (
  app_name VARCHAR(128) NOT NULL,
  segment TEXT NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('used', 'control', 'withdrawn', 'unused', 'refused')),
  user_id VARCHAR(128),
  created_at TIMESTAMP WITH TIME ZONE NOT NULL,
  observed_at TIMESTAMP WITH TIME ZONE NOT NULL,
  sessions BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE lapse_observed_days (
  app_name VARCHAR(128) NOT NULL,
  segment TEXT NOT NULL,
  day DATE NOT NULL,
  outcome TEXT NOT NULL,
  bucket INTEGER NOT NULL,
  sessions BIGINT NOT NULL,
  PRIMARY KEY (app_name, segment, day, outcome, bucket)
);

-- The digests of purged keys, kept for a week: with them a message that comes too late can be told
-- from a message to an unknown session.
CREATE TABLE lapse_purged (
  key_digest BYTEA PRIMARY KEY,
  app_name VARCHAR(128) NOT NULL,
  segment TEXT NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE NOT NULL,
  purged_at TIMESTAMP WITH TIME ZONE NOT NULL
);
CREATE INDEX lapse_purged_age ON lapse_purged (purged_at);

CREATE TABLE lapse_ttl_rounds (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  slot BIGINT NOT NULL,
  version BIGINT NOT NULL
);

CREATE TABLE lapse_ttl_decisions (
  number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  app_name VARCHAR(128) NOT NULL,
  segment TEXT NOT NULL,
  decision JSONB NOT NULL
);
CREATE INDEX lapse_ttl_decisions_newest ON lapse_ttl_decisions (app_name, segment, number DESC);

-- The sessions that were used before this migration.
INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
SELECT app_name, lapse_segment(metadata), 'used', user_id, created_at, first_message_at
FROM lapse_lobby WHERE status = 'used';
