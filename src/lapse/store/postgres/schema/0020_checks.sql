-- A sweep of retention looks at used sessions, and purges archived ones: it finds the one without
-- passing the other, and what it finds in order, without passing the dead entries of those before.
DROP INDEX lapse_lobby_check;
CREATE INDEX lapse_lobby_check ON lapse_lobby (status, check_at) WHERE check_at IS NOT NULL;
