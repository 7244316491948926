-- Who changed what by hand. Records are only ever added; `docs/audit.md` says how to prune them.

CREATE TABLE lapse_audit (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  principal TEXT NOT NULL,
  action TEXT NOT NULL,
  app_name VARCHAR(128),
  session VARCHAR(8),
  detail TEXT NOT NULL
);

CREATE TRIGGER lapse_audit_no_update BEFORE UPDATE ON lapse_audit BEGIN
  SELECT RAISE(ABORT, 'lapse_audit is append-only');
END;

CREATE TRIGGER lapse_audit_no_delete BEFORE DELETE ON lapse_audit BEGIN
  SELECT RAISE(ABORT, 'lapse_audit is append-only');
END;
