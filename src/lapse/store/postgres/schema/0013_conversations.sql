-- Conversations elsewhere: a used session may live in another session service. A session that is on its
-- way there is `moving`, one that is there is `elsewhere`, and one that is on its way out of both is
-- `deleting`. None of the three has a deadline, so that no sweep can find it. mark names the
-- hand-over, in the other service, too; fence is new with each process that takes it over, and only
-- the one that has the newest may finish it. message is the first message until it is stored.
ALTER TABLE lapse_lobby
  ADD COLUMN mark VARCHAR(64),
  ADD COLUMN fence BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN lease_until TIMESTAMP WITH TIME ZONE,
  ADD COLUMN message TEXT,
  ADD COLUMN service_id TEXT,
  DROP CONSTRAINT lapse_lobby_status_check,
  DROP CONSTRAINT lapse_lobby_check,
  ADD CONSTRAINT lapse_lobby_status_check
    CHECK (status IN ('waiting', 'used', 'expired', 'moving', 'elsewhere', 'deleting')) NOT VALID,
  ADD CONSTRAINT lapse_lobby_check
    CHECK (expires_at IS NOT NULL OR status NOT IN ('waiting', 'expired')) NOT VALID;

-- Partial, so that it holds only what is on its way.
CREATE INDEX lapse_lobby_lease ON lapse_lobby (lease_until) WHERE lease_until IS NOT NULL;

-- For lists of used sessions, and to learn at once whether there is any that another service holds.
CREATE INDEX lapse_lobby_elsewhere ON lapse_lobby (app_name, user_id, session_id)
  WHERE status = 'elsewhere';
