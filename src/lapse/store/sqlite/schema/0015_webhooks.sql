-- Events for the operators' webhook. Triggers write them in the transaction of the change; they exist
-- only while a server has a webhook (`announce_webhook`), so that without one nothing costs anything.

CREATE TABLE lapse_webhooks (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  seen_at INTEGER NOT NULL
);

-- happens: a session's deadline or the end of its restoration, or the end of a brake. amount: how often
-- a session was resurrected, or how many sessions a brake holds back. reason: of a brake.
CREATE TABLE lapse_webhook_outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  event TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
  kind TEXT NOT NULL,
  app_name VARCHAR(128) NOT NULL DEFAULT '',
  user_id VARCHAR(128) NOT NULL DEFAULT '',
  session_id VARCHAR(128) NOT NULL DEFAULT '',
  at INTEGER NOT NULL,
  created_at INTEGER,
  happens INTEGER,
  amount INTEGER NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '',
  due_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX lapse_webhook_outbox_due ON lapse_webhook_outbox (due_at);
CREATE INDEX lapse_webhook_outbox_at ON lapse_webhook_outbox (at);

CREATE TABLE lapse_webhook_dead (
  event VARCHAR(36) PRIMARY KEY,
  kind TEXT NOT NULL,
  app_name VARCHAR(128) NOT NULL,
  at INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  given_up_at INTEGER NOT NULL
);
CREATE INDEX lapse_webhook_dead_given_up ON lapse_webhook_dead (given_up_at);
