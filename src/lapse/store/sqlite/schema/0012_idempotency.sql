-- Idempotency keys, kept for a day. A row holds digests of the key, of its owner and of the request,
-- and its subject: the latest run of the request, or the session that it has created. first_sent_at is
-- in microseconds since the epoch.

CREATE TABLE lapse_idempotency (
  idempotency_key VARCHAR(64) PRIMARY KEY,
  owner VARCHAR(16) NOT NULL,
  request VARCHAR(64) NOT NULL,
  subject VARCHAR(128) NOT NULL,
  first_sent_at INTEGER NOT NULL
);

CREATE INDEX lapse_idempotency_owner ON lapse_idempotency (owner, first_sent_at);

CREATE INDEX lapse_idempotency_age ON lapse_idempotency (first_sent_at);
