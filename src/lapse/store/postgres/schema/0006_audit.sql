-- Who changed what by hand. Records are only ever added; `docs/audit.md` says how to prune them.

CREATE TABLE lapse_audit (
  number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at TIMESTAMP WITH TIME ZONE NOT NULL,
  principal TEXT NOT NULL,
  action TEXT NOT NULL,
  app_name VARCHAR(128),
  session VARCHAR(8),
  detail JSONB NOT NULL
);

CREATE FUNCTION lapse_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;

CREATE TRIGGER lapse_audit_append_only BEFORE UPDATE OR DELETE ON lapse_audit
  FOR EACH STATEMENT EXECUTE FUNCTION lapse_append_only();
