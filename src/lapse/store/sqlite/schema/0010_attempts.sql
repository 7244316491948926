-- The row that is written to learn whether the store can be written. It is as large as what a create
-- writes, so that a disk with less room than that counts as full.
CREATE TABLE lapse_pings (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  at INTEGER NOT NULL,
  filler BLOB NOT NULL
);
