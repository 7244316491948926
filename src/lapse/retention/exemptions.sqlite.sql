-- What a policy leaves alone: sessions that are pinned, and sessions and users on hold.

-- name: is_held
-- A part of statements: whether somebody holds the session of the row `l`.
EXISTS (
  SELECT 1 FROM lapse_holds AS h
  WHERE h.user_id = l.user_id AND h.app_name IN ('', l.app_name)
    AND h.session_id IN ('', l.session_id)
);

-- name: key_is_held
-- A part of statements: whether somebody holds the session that the statement is about.
EXISTS (
  SELECT 1 FROM lapse_holds AS h
  WHERE h.user_id = :user_id AND h.app_name IN ('', :app_name)
    AND h.session_id IN ('', :session_id)
)

-- name: held
-- Whether somebody holds a session.
SELECT reason FROM lapse_holds AS h
WHERE h.user_id = :user_id AND h.app_name IN ('', :app_name) AND h.session_id IN ('', :session_id)
ORDER BY since LIMIT 1;

-- name: holds
SELECT app_name, user_id, session_id, since AS held_since, principal, reason FROM lapse_holds
WHERE :only_user IS NULL OR user_id = :only_user
ORDER BY since, user_id, app_name, session_id;

-- name: exclude_writers
-- No-op: no other process writes during the transaction of a hold.

-- name: put_on_hold
INSERT INTO lapse_holds (user_id, app_name, session_id, since, principal, reason)
VALUES (:user_id, :app_name, :session_id, :now, :by, :reason)
ON CONFLICT DO NOTHING
RETURNING user_id;

-- name: look_soon
-- What was exempt is looked at soon. Each app is found with one step in an index, and in it the used
-- sessions of the user, however many sessions there are.
WITH RECURSIVE apps (app) AS (
  SELECT CASE WHEN :app_name = '' THEN (SELECT min(app_name) FROM lapse_lobby) ELSE :app_name END
  UNION ALL SELECT (SELECT min(app_name) FROM lapse_lobby WHERE app_name > app) FROM apps
  WHERE :app_name = '' AND app IS NOT NULL
)
UPDATE lapse_lobby SET check_at = :now
WHERE app_name IN (SELECT app FROM apps) AND user_id = :user_id AND :session_id IN ('', session_id)
  AND used_id IS NOT NULL AND +check_at > :now; -- not by the index of all that is looked at later

-- name: pin
UPDATE lapse_lobby SET pinned_at = :now
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('used', 'archived') AND pinned_at IS NULL
  AND (used_id IS NULL OR EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = used_id
  ))
RETURNING *, {key_is_held} AS is_held;

-- name: unpin
UPDATE lapse_lobby
SET pinned_at = NULL, check_at = CASE WHEN status = 'used' THEN :now ELSE check_at END
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND pinned_at IS NOT NULL
RETURNING *;

-- name: release_hold
DELETE FROM lapse_holds
WHERE user_id = :user_id AND app_name = :app_name AND session_id = :session_id
RETURNING user_id;

-- name: pinned
SELECT *, {is_held} AS is_held FROM lapse_lobby AS l WHERE pinned_at IS NOT NULL
ORDER BY app_name, user_id, session_id LIMIT :limit;
