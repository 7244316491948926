-- The outbox of what the memory service is to forget of purged sessions. :event_ids is a JSON array of
-- ids, :parts an array of such texts.
--
-- Types of parameters:
-- :lease, :memory_pause duration

-- name: owe_memory
INSERT INTO lapse_memory_outbox (app_name, user_id, session_id, event_ids, due_at)
SELECT :app_name, :user_id, :session_id, value, :now FROM json_each(:parts) ORDER BY key;

-- name: take_memory
UPDATE lapse_memory_outbox SET attempts = attempts + 1, due_at = :now + :lease
WHERE id IN (
  SELECT id FROM lapse_memory_outbox WHERE due_at <= :now ORDER BY due_at LIMIT :limit
)
RETURNING id, app_name, user_id, session_id, event_ids, attempts;

-- name: postpone_memory
-- Whoever took it again meanwhile keeps it.
UPDATE lapse_memory_outbox SET event_ids = :event_ids, due_at = :now + :memory_pause
WHERE id = :owed AND attempts = :attempts;

-- name: settle_memory
DELETE FROM lapse_memory_outbox WHERE id = :owed;
