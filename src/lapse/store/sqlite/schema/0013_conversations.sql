-- Conversations elsewhere: a used session may live in another session service. A session that is on its
-- way there is `moving`, one that is there is `elsewhere`, and one that is on its way out of both is
-- `deleting`. None of the three has a deadline, so that no sweep can find it. mark names the
-- hand-over, in the other service, too; fence is new with each process that takes it over, and only
-- the one that has the newest may finish it. message is the first message until it is stored.
ALTER TABLE lapse_lobby ADD COLUMN mark VARCHAR(64);
ALTER TABLE lapse_lobby ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lapse_lobby ADD COLUMN lease_until INTEGER;
ALTER TABLE lapse_lobby ADD COLUMN message TEXT;
ALTER TABLE lapse_lobby ADD COLUMN service_id TEXT;

-- SQLite cannot change a CHECK, and its own documentation says to relax one like this: no row that is
-- stored becomes invalid, and none is read or written. A copy of the table would take as long as
-- the table is large.
PRAGMA writable_schema = ON;
UPDATE sqlite_master SET sql = replace(
  replace(
    sql,
    'CHECK (status IN (''waiting'', ''used'', ''expired''))',
    'CHECK (status IN (''waiting'', ''used'', ''expired'', ''moving'', ''elsewhere'', ''deleting''))'
  ),
  'CHECK (expires_at IS NOT NULL OR status = ''used'')',
  'CHECK (expires_at IS NOT NULL OR status NOT IN (''waiting'', ''expired''))'
)
WHERE type = 'table' AND name = 'lapse_lobby';
PRAGMA writable_schema = RESET;

-- Partial, so that it holds only what is on its way.
CREATE INDEX lapse_lobby_lease ON lapse_lobby (lease_until) WHERE lease_until IS NOT NULL;

-- For lists of used sessions, and to learn at once whether there is any that another service holds.
CREATE INDEX lapse_lobby_elsewhere ON lapse_lobby (app_name, user_id, session_id)
  WHERE status = 'elsewhere';
