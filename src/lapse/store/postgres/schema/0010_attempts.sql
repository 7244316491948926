-- What makes a repeat after a broken connection do nothing twice: a note for each act that was done,
-- kept for longer than any network holds a statement back.

CREATE TABLE lapse_attempts (
  attempt BIGINT PRIMARY KEY,
  session_id VARCHAR(128),
  at TIMESTAMP WITH TIME ZONE NOT NULL
);

-- Which attempt drew the last token of a bucket.
ALTER TABLE lapse_turns ADD COLUMN attempt BIGINT;

-- The row that is written to learn whether the store can be written.
CREATE TABLE lapse_pings (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  at TIMESTAMP WITH TIME ZONE NOT NULL
) WITH (fillfactor = 25);
