-- Acts are found by a digest of their session's key, and none can be replaced. Acts from before
-- this version have no digest: their session is not known.

ALTER TABLE lapse_audit ADD COLUMN digest VARCHAR(16);

CREATE INDEX lapse_audit_session ON lapse_audit (digest, number) WHERE digest IS NOT NULL;

-- `INSERT OR REPLACE` deletes the row that it replaces without running the trigger on deletes.
CREATE TRIGGER lapse_audit_no_replace BEFORE INSERT ON lapse_audit
WHEN EXISTS (SELECT 1 FROM lapse_audit WHERE number = NEW.number) BEGIN
  SELECT RAISE(ABORT, 'lapse_audit is append-only');
END;
