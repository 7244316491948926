-- Whose message makes a session used: the rule that held when it was created. agent_spoke tells that
-- the row holds words of the agent, which are no use where only the user's message is.
ALTER TABLE lapse_lobby
  ADD COLUMN used_by TEXT NOT NULL DEFAULT 'anyone' CHECK (used_by IN ('anyone', 'user')),
  ADD COLUMN agent_spoke BOOLEAN NOT NULL DEFAULT false;

-- Partial, so that it costs nothing where the agent's message makes a session used.
CREATE INDEX lapse_lobby_agent_spoke ON lapse_lobby (app_name)
  WHERE agent_spoke AND status = 'waiting';
