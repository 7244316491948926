-- Rate limits of creations, and the quotas of waiting sessions. A site is a digest of a client's
-- address, kept until the first message. lapse_turns has the buckets of tokens: a bucket is full
-- again at full_at, and one without a row is full.

ALTER TABLE lapse_lobby ADD COLUMN site VARCHAR(16);

CREATE INDEX lapse_lobby_waiting_user ON lapse_lobby (user_id, app_name) WHERE status = 'waiting';
CREATE INDEX lapse_lobby_waiting_site ON lapse_lobby (site)
  WHERE status = 'waiting' AND site IS NOT NULL;

CREATE TABLE lapse_turns (
  bucket VARCHAR(32) PRIMARY KEY,
  full_at INTEGER NOT NULL
) WITHOUT ROWID;
