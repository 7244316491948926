-- The outbox of the operators' webhook.
--
-- Types of parameters:
-- :lease, :longest, :kept, :remembered, :silence interval
-- :ids bigint[]

-- name: announce_webhook
-- The triggers are made by a function of the tables' owner.
INSERT INTO lapse_webhooks AS w (id, seen_at) VALUES (1, coalesce(:now, clock_timestamp()))
ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at;

-- name: make_webhook_triggers
SELECT lapse_webhooks_on();

-- name: end_webhooks
DELETE FROM lapse_webhooks WHERE seen_at < coalesce(:now, clock_timestamp()) - :silence
RETURNING id;

-- name: drop_webhook_triggers
SELECT lapse_webhooks_off();

-- name: take_webhooks
-- Takes events that are due, and sets the time of the next attempt.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT o.id FROM lapse_webhook_outbox AS o
  WHERE o.due_at <= (SELECT now FROM clock)
  ORDER BY o.due_at, o.id
  LIMIT :limit
  FOR UPDATE OF o SKIP LOCKED
)
UPDATE lapse_webhook_outbox AS o
SET attempts = o.attempts + 1,
  due_at = now + least(:lease * (2 ^ least(o.attempts, 20)), :longest)
FROM due, clock
WHERE o.id = due.id
RETURNING o.id, o.event, o.kind, o.app_name, o.user_id, o.session_id, o.at, o.created_at, o.happens,
  o.amount, o.reason, o.attempts;

-- name: settle_webhooks
DELETE FROM lapse_webhook_outbox WHERE id = ANY (:ids);

-- name: give_up_webhooks
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
late AS (
  SELECT o.id FROM lapse_webhook_outbox AS o
  WHERE o.at <= (SELECT now FROM clock) - :kept
  ORDER BY o.at LIMIT :limit
  FOR UPDATE OF o SKIP LOCKED
),
gone AS (
  DELETE FROM lapse_webhook_outbox AS o USING late WHERE o.id = late.id
  RETURNING o.id, o.event, o.kind, o.app_name, o.at, o.attempts
)
INSERT INTO lapse_webhook_dead (event, kind, app_name, at, attempts, given_up_at)
SELECT event, kind, app_name, at, attempts, now FROM gone, clock
ON CONFLICT (event) DO NOTHING
RETURNING event AS id;

-- name: forget_dead_webhooks
WITH old AS (
  SELECT d.event FROM lapse_webhook_dead AS d
  WHERE d.given_up_at <= (SELECT coalesce(:now, clock_timestamp()) - :remembered)
  ORDER BY d.given_up_at LIMIT :limit
  FOR UPDATE OF d SKIP LOCKED
)
DELETE FROM lapse_webhook_dead AS d USING old WHERE d.event = old.event;

-- name: webhook_levels
SELECT coalesce(:now, clock_timestamp()) AS now,
  (SELECT count(*) FROM (SELECT 1 FROM lapse_webhook_outbox LIMIT :most) AS o) AS undelivered,
  (SELECT at FROM lapse_webhook_outbox ORDER BY at LIMIT 1) AS at,
  (SELECT count(*) FROM (SELECT 1 FROM lapse_webhook_dead LIMIT :most) AS d) AS given_up;
