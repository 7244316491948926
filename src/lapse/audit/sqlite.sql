-- The records of acts, added in the transactions of what was done.

-- name: record_act
INSERT INTO lapse_audit (at, principal, action, app_name, session, detail)
VALUES (:now, :by, :action, nullif(:app_name, ''), nullif(:session, ''), :detail);

-- name: acts
SELECT * FROM lapse_audit
WHERE :before_number IS NULL OR number < :before_number
ORDER BY number DESC LIMIT :newest;
