-- What a policy leaves alone: sessions that are pinned, and sessions and users on hold.

-- name: is_held
-- A part of statements: whether somebody holds the session of the row `l`.
EXISTS (
  SELECT 1 FROM lapse_holds AS h
  WHERE h.user_id = l.user_id AND h.app_name IN ('', l.app_name)
    AND h.session_id IN ('', l.session_id)
)

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
-- A hold comes before or after every transaction that changes the lobby, also one that has locked
-- rows and not changed them yet. Readers go on.
LOCK TABLE lapse_lobby IN EXCLUSIVE MODE;

-- name: put_on_hold
INSERT INTO lapse_holds (user_id, app_name, session_id, since, principal, reason)
VALUES (:user_id, :app_name, :session_id, coalesce(:now, clock_timestamp()), :by, :reason)
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
UPDATE lapse_lobby AS l SET check_at = coalesce(:now, clock_timestamp())
FROM apps
WHERE l.app_name = apps.app AND l.user_id = :user_id AND :session_id IN ('', l.session_id)
  AND l.used_id IS NOT NULL AND l.check_at > coalesce(:now, clock_timestamp());

-- name: pin
WITH done AS (
  UPDATE lapse_lobby AS l SET pinned_at = coalesce(:now, clock_timestamp())
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.status IN ('used', 'archived') AND l.pinned_at IS NULL
  RETURNING l.*, l.pinned_at AS now
),
audited AS {audited}
SELECT *, {key_is_held} AS is_held FROM done;

-- name: unpin
WITH done AS (
  UPDATE lapse_lobby AS l
  SET pinned_at = NULL,
    check_at = CASE WHEN l.status = 'used' THEN coalesce(:now, clock_timestamp()) ELSE check_at END
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.pinned_at IS NOT NULL
  RETURNING l.*, coalesce(:now, clock_timestamp()) AS now
),
audited AS {audited}
SELECT * FROM done;

-- name: release_hold
DELETE FROM lapse_holds
WHERE user_id = :user_id AND app_name = :app_name AND session_id = :session_id
RETURNING user_id;

-- name: pinned
SELECT l.*, {is_held} AS is_held, coalesce(:now, clock_timestamp()) AS now FROM lapse_lobby AS l
WHERE pinned_at IS NOT NULL
ORDER BY app_name, user_id, session_id LIMIT :limit;
