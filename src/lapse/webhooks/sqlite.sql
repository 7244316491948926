-- The outbox of the operators' webhook.
--
-- Types of parameters and columns:
-- :at, :created_at, :happens, :given_up_at moment
-- :lease, :longest, :kept, :remembered, :silence duration

-- name: announce_webhook
-- A trigger cannot use parameters; the moment of a resurrection is told by what the row says of it.
INSERT INTO lapse_webhooks (id, seen_at) VALUES (1, :now)
ON CONFLICT (id) DO UPDATE SET seen_at = :now;
CREATE TRIGGER IF NOT EXISTS lapse_webhook_expired AFTER UPDATE OF status ON lapse_lobby
WHEN NEW.status = 'expired' AND OLD.status <> 'expired'
BEGIN
  INSERT INTO lapse_webhook_outbox
    (kind, app_name, user_id, session_id, at, created_at, happens, amount, due_at)
  VALUES ('session.expired', NEW.app_name, NEW.user_id, NEW.session_id, NEW.expired_at,
    NEW.created_at, NEW.restorable_until, NEW.resurrections, NEW.expired_at);
END;
CREATE TRIGGER IF NOT EXISTS lapse_webhook_resurrected AFTER UPDATE OF resurrections ON lapse_lobby
WHEN NEW.resurrections > OLD.resurrections AND NEW.status <> 'expired'
BEGIN
  INSERT INTO lapse_webhook_outbox
    (kind, app_name, user_id, session_id, at, created_at, happens, amount, due_at)
  SELECT 'session.resurrected', NEW.app_name, NEW.user_id, NEW.session_id, happened,
    NEW.created_at, CASE WHEN NEW.status = 'waiting' THEN NEW.expires_at END,
    NEW.resurrections, happened
  FROM (SELECT coalesce(NEW.first_message_at, NEW.expires_at - NEW.ttl) AS happened);
END;
CREATE TRIGGER IF NOT EXISTS lapse_webhook_brake AFTER INSERT ON lapse_brakes
WHEN NEW.released_at IS NULL
BEGIN
  INSERT INTO lapse_webhook_outbox (kind, at, happens, amount, reason, due_at)
  VALUES ('brake.set', NEW.since, NEW.until, NEW.sessions, NEW.reason, NEW.since);
END;
CREATE TRIGGER IF NOT EXISTS lapse_webhook_brake_again AFTER UPDATE OF since ON lapse_brakes
WHEN NEW.released_at IS NULL
BEGIN
  INSERT INTO lapse_webhook_outbox (kind, at, happens, amount, reason, due_at)
  VALUES ('brake.set', NEW.since, NEW.until, NEW.sessions, NEW.reason, NEW.since);
END;

-- name: end_webhooks
-- A server with a webhook announces it every few minutes; after so long a silence there is none.
DELETE FROM lapse_webhooks WHERE seen_at < :now - :silence
RETURNING id;

-- name: drop_webhook_triggers
DROP TRIGGER IF EXISTS lapse_webhook_expired;
DROP TRIGGER IF EXISTS lapse_webhook_resurrected;
DROP TRIGGER IF EXISTS lapse_webhook_brake;
DROP TRIGGER IF EXISTS lapse_webhook_brake_again;

-- name: take_webhooks
-- Takes events that are due, and sets the time of the next attempt.
UPDATE lapse_webhook_outbox
SET attempts = attempts + 1, due_at = :now + min(:lease << min(attempts, 20), :longest)
WHERE id IN (
  SELECT id FROM lapse_webhook_outbox WHERE due_at <= :now ORDER BY due_at, id LIMIT :limit
)
RETURNING id, event, kind, app_name, user_id, session_id, at, created_at, happens, amount, reason,
  attempts;

-- name: settle_webhooks
DELETE FROM lapse_webhook_outbox WHERE id IN (SELECT value FROM json_each(:ids));

-- name: give_up_webhooks
-- Two statements: nothing is written between them.
INSERT INTO lapse_webhook_dead (event, kind, app_name, at, attempts, given_up_at)
SELECT event, kind, app_name, at, attempts, :now FROM lapse_webhook_outbox
WHERE id IN (
  SELECT id FROM lapse_webhook_outbox WHERE at <= :now - :kept ORDER BY at, id LIMIT :limit
);
DELETE FROM lapse_webhook_outbox
WHERE id IN (
  SELECT id FROM lapse_webhook_outbox WHERE at <= :now - :kept ORDER BY at, id LIMIT :limit
)
RETURNING id;

-- name: forget_dead_webhooks
DELETE FROM lapse_webhook_dead
WHERE event IN (
  SELECT event FROM lapse_webhook_dead WHERE given_up_at <= :now - :remembered
  ORDER BY given_up_at LIMIT :limit
);

-- name: webhook_levels
SELECT
  (SELECT count(*) FROM (SELECT 1 FROM lapse_webhook_outbox LIMIT :most)) AS undelivered,
  (SELECT at FROM lapse_webhook_outbox ORDER BY at LIMIT 1) AS at,
  (SELECT count(*) FROM (SELECT 1 FROM lapse_webhook_dead LIMIT :most)) AS given_up;

-- name: make_webhook_triggers
-- No-op: announce_webhook makes them.
