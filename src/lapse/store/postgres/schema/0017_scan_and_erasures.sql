-- When the scan of retention had been through all sessions since the confirmation; until then it does
-- not rest.
ALTER TABLE lapse_retention ADD COLUMN scanned_at TIMESTAMP WITH TIME ZONE;

-- What an erasure found when it began, until it has recorded its receipt, so that one that was stopped
-- and goes on counts all. The digest is of the user.
CREATE TABLE lapse_erasures (
  user_digest VARCHAR(16) NOT NULL PRIMARY KEY,
  found TEXT NOT NULL,
  began_at TIMESTAMP WITH TIME ZONE NOT NULL
);
