-- Operators count and list what is pinned. It has no other session, so that a message writes no index.
CREATE INDEX lapse_lobby_pinned ON lapse_lobby (app_name, user_id, session_id)
WHERE pinned_at IS NOT NULL;
