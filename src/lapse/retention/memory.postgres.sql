-- The outbox of what the memory service is to forget of purged sessions. :event_ids is a JSON array of
-- ids, :parts an array of such texts.
--
-- Types of parameters:
-- :memory_pause interval
-- :attempts, :owed bigint
-- :event_ids text
-- :parts text[]

-- name: owe_memory
INSERT INTO lapse_memory_outbox (app_name, user_id, session_id, event_ids, due_at)
SELECT :app_name, :user_id, :session_id, part, coalesce(:now, clock_timestamp())
FROM unnest(:parts) WITH ORDINALITY AS p (part, place) ORDER BY place;

-- name: take_memory
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT o.id FROM lapse_memory_outbox AS o
  WHERE o.due_at <= (SELECT now FROM clock)
  ORDER BY o.due_at
  LIMIT :limit
  FOR UPDATE OF o SKIP LOCKED
)
UPDATE lapse_memory_outbox AS o SET attempts = o.attempts + 1, due_at = now + :lease
FROM due, clock
WHERE o.id = due.id
RETURNING o.id, o.app_name, o.user_id, o.session_id, o.event_ids, o.attempts;

-- name: postpone_memory
-- Whoever took it again meanwhile keeps it.
UPDATE lapse_memory_outbox
SET event_ids = :event_ids, due_at = coalesce(:now, clock_timestamp()) + :memory_pause
WHERE id = :owed AND attempts = :attempts;

-- name: settle_memory
DELETE FROM lapse_memory_outbox WHERE id = :owed;
