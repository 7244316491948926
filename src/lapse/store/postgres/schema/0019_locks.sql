-- Locks of a server without advisory locks (LAPSE_POSTGRES_WITHOUT): each row is one, taken by changing
-- it. Nothing says whose it was. IF NOT EXISTS, because such a server locks the schema with it, too.
CREATE TABLE IF NOT EXISTS lapse_locks (
  place INTEGER PRIMARY KEY,
  turn BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
