-- Idempotency keys on PostgreSQL.
--
-- Types of parameters:
-- :idempotency_key, :owner, :request_digest, :subject varchar

-- name: read_key
-- There is always one row: the key's, or, for a key that is not kept, how many keys its owner has.
SELECT k.request, k.subject, k.first_sent_at, clock.now, (
    SELECT count(*) FROM (
      SELECT 1 FROM lapse_idempotency AS o
      WHERE o.owner = :owner AND o.first_sent_at > clock.now - :kept AND k.request IS NULL
      LIMIT :most
    ) AS counted
  ) AS of_owner
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock
LEFT JOIN lapse_idempotency AS k
  ON k.idempotency_key = :idempotency_key AND k.first_sent_at > clock.now - :kept;

-- name: keep_key
-- A key that is kept already gets another subject, and keeps its age.
INSERT INTO lapse_idempotency AS k (idempotency_key, owner, request, subject, first_sent_at)
VALUES (
  :idempotency_key, :owner, :request_digest, :subject, coalesce(:now, clock_timestamp())
)
ON CONFLICT (idempotency_key) DO UPDATE SET
  request = excluded.request, subject = excluded.subject,
  first_sent_at = CASE
    WHEN k.first_sent_at > excluded.first_sent_at - :kept THEN k.first_sent_at
    ELSE excluded.first_sent_at
  END
RETURNING first_sent_at;

-- name: forget_keys
DELETE FROM lapse_idempotency AS k USING (
  SELECT idempotency_key FROM lapse_idempotency
  WHERE first_sent_at <= (SELECT coalesce(:now, clock_timestamp())) - :kept
  LIMIT :limit FOR UPDATE SKIP LOCKED
) AS old
WHERE k.idempotency_key = old.idempotency_key
  AND k.first_sent_at <= coalesce(:now, clock_timestamp()) - :kept
RETURNING 1 AS forgotten;
