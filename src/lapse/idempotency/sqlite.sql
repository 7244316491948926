-- Idempotency keys on SQLite.
--
-- Types of columns:
-- :first_sent_at moment

-- name: read_key
-- There is always one row: the key's, or, for a key that is not kept, how many keys its owner has.
SELECT k.request, k.subject, k.first_sent_at, (
    SELECT count(*) FROM (
      SELECT 1 FROM lapse_idempotency
      WHERE owner = :owner AND first_sent_at > :now - :kept AND k.request IS NULL
      LIMIT :most
    )
  ) AS of_owner
FROM (SELECT 1) LEFT JOIN lapse_idempotency AS k
  ON k.idempotency_key = :idempotency_key AND k.first_sent_at > :now - :kept;

-- name: keep_key
-- A key that is kept already gets another subject, and keeps its age.
INSERT INTO lapse_idempotency (idempotency_key, owner, request, subject, first_sent_at)
VALUES (:idempotency_key, :owner, :request_digest, :subject, :now)
ON CONFLICT (idempotency_key) DO UPDATE SET
  request = excluded.request, subject = excluded.subject,
  first_sent_at = CASE
    WHEN first_sent_at > :now - :kept THEN first_sent_at ELSE excluded.first_sent_at
  END
RETURNING first_sent_at;

-- name: forget_keys
DELETE FROM lapse_idempotency WHERE rowid IN (
  SELECT rowid FROM lapse_idempotency WHERE first_sent_at <= :now - :kept LIMIT :limit
)
RETURNING 1;
