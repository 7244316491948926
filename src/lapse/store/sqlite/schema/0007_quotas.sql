-- What keeps the creation of sessions within its quotas. A site is a digest of an address, kept
-- until the first message. A bucket is full again at full_at; without a row it is full.

ALTER TABLE lapse_lobby ADD COLUMN site VARCHAR(16);

CREATE INDEX lapse_lobby_waiting_user ON lapse_lobby (user_id, app_name) WHERE status = 'waiting';
CREATE INDEX lapse_lobby_waiting_site ON lapse_lobby (site)
  WHERE status = 'waiting' AND site IS NOT NULL;

CREATE TABLE lapse_turns (
  bucket VARCHAR(32) PRIMARY KEY,
  full_at INTEGER NOT NULL
) WITHOUT ROWID;
