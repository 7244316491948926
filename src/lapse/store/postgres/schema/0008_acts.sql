-- Acts are found by a digest of their session's key, and not all at once can be deleted. Acts from
-- before this version have no digest: their session is not known.

ALTER TABLE lapse_audit ADD COLUMN digest VARCHAR(16);

CREATE INDEX lapse_audit_session ON lapse_audit (digest, number) WHERE digest IS NOT NULL;

-- TRUNCATE does not run the trigger on deletes.
DROP TRIGGER lapse_audit_append_only ON lapse_audit;

CREATE TRIGGER lapse_audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lapse_audit
  FOR EACH STATEMENT EXECUTE FUNCTION lapse_append_only();
