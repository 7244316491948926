-- The records of acts, added by the statements of the acts themselves.
--
-- Types of parameters:
-- :before_number bigint
-- :detail jsonb
-- :action, :by, :digest text

-- name: audited
-- A part of the statements that change a session: their table `done` has its row.
INSERT INTO lapse_audit (at, principal, action, app_name, session, digest, detail)
SELECT now, :by, :action, app_name, left(session_id, 8), :digest, :detail FROM done
WHERE :by IS NOT NULL;

-- name: record_act
WITH taken AS (
  SELECT nullif(:session_id, '') AS session_id, coalesce(:now, clock_timestamp()) AS now
),
fresh AS {once}
INSERT INTO lapse_audit (at, principal, action, app_name, session, digest, detail)
SELECT now, :by, :action, nullif(:app_name, ''), left(session_id, 8), :digest, :detail
FROM taken, fresh;

-- name: acts
SELECT * FROM lapse_audit
WHERE :before_number IS NULL OR number < :before_number
ORDER BY number DESC LIMIT :newest;

-- name: acts_on
SELECT * FROM lapse_audit WHERE digest = :digest ORDER BY number DESC LIMIT :newest;

-- name: audit_change
-- No-op: `audited` is a part of the statements of the transitions.
