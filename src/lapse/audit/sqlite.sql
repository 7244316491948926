-- The records of acts, added in the transactions of the acts themselves.
--
-- Types of columns:
-- :at moment

-- name: record_act
INSERT INTO lapse_audit (at, principal, action, app_name, session, digest, detail)
VALUES (
  :now, :by, :action, nullif(:app_name, ''), nullif(substr(:session_id, 1, 8), ''), :digest, :detail
);

-- name: audit_change
-- Rides in a transition that somebody asked for.
INSERT INTO lapse_audit (at, principal, action, app_name, session, digest, detail)
VALUES (:now, :by, :action, :app_name, substr(:session_id, 1, 8), :digest, :detail);

-- name: acts
SELECT * FROM lapse_audit
WHERE :before_number IS NULL OR number < :before_number
ORDER BY number DESC LIMIT :newest;

-- name: acts_on
SELECT * FROM lapse_audit WHERE digest = :digest ORDER BY number DESC LIMIT :newest;
