-- The outbox of ended sessions whose artifacts are to be deleted, and the artifacts that requests
-- have saved, by which the quota counts.
--
-- Types of parameters and columns:
-- :ended_at moment
-- :abandoned duration

-- name: note_artifacts
INSERT INTO lapse_artifact_outbox (app_name, user_id, session_id, ended_at, due_at)
VALUES (:app_name, :user_id, :session_id, :now, :now)
ON CONFLICT (app_name, user_id, session_id) DO UPDATE
SET ended_at = excluded.ended_at, due_at = excluded.due_at, attempts = 0;

-- name: take_outbox
-- Takes sessions whose artifacts are due to be deleted, and sets the time of the next attempt.
UPDATE lapse_artifact_outbox
SET attempts = attempts + 1,
  due_at = :now + min(60000000 << min(attempts, 10), 3600000000)
WHERE rowid IN (
  SELECT rowid FROM lapse_artifact_outbox WHERE due_at <= :now ORDER BY due_at LIMIT :limit
)
RETURNING app_name, user_id, session_id, ended_at, attempts;

-- name: take_outbox_of
-- Takes one session, whether it is due or not.
UPDATE lapse_artifact_outbox
SET attempts = attempts + 1,
  due_at = :now + min(60000000 << min(attempts, 10), 3600000000)
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
RETURNING app_name, user_id, session_id, ended_at, attempts;

-- name: settle_outbox
-- What was saved after the end belongs to a new session of the same key.
DELETE FROM lapse_uploads
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND taken_at <= :ended_at;
DELETE FROM lapse_artifact_outbox
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND ended_at = :ended_at;

-- name: note_late_artifacts
-- Notes a session that ended while an artifact was being saved in it.
INSERT INTO lapse_artifact_outbox (app_name, user_id, session_id, ended_at, due_at)
SELECT :app_name, :user_id, :session_id, :now, :now
WHERE :artifacts AND :session_id <> ''
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
  AND NOT EXISTS (
    SELECT 1 FROM lapse_lobby
    WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  )
ON CONFLICT (app_name, user_id, session_id) DO UPDATE
SET ended_at = excluded.ended_at, due_at = excluded.due_at, attempts = 0;

-- name: take_room
INSERT INTO lapse_uploads (upload, user_id, app_name, session_id, artifact, bytes, taken_at)
SELECT :upload, :user_id, :app_name, :session_id, :artifact, :bytes, :now
WHERE :most_bytes_kept >= :bytes + (
  SELECT coalesce(sum(bytes), 0) FROM lapse_uploads WHERE user_id = :user_id
)
RETURNING upload;

-- name: note_upload
-- It counts for no bytes: there was no quota.
INSERT INTO lapse_uploads (upload, user_id, app_name, session_id, artifact, bytes, taken_at)
SELECT :upload, :user_id, :app_name, :session_id, :artifact, 0, :now
WHERE EXISTS (
  SELECT 1 FROM lapse_lobby
  WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
    AND status = 'waiting'
)
ON CONFLICT (upload) DO NOTHING;

-- name: holds_upload
-- A part of other statements: whether something was uploaded to the session of the lobby row `l`.
EXISTS (
  SELECT 1 FROM lapse_uploads AS up
  WHERE up.user_id = l.user_id AND up.app_name = l.app_name AND up.session_id = l.session_id
);

-- name: keep_upload
-- The row is gone if the session has ended meanwhile and its artifacts were deleted.
INSERT INTO lapse_uploads (
  upload, user_id, app_name, session_id, artifact, bytes, taken_at, is_saved
)
VALUES (:upload, :user_id, :app_name, :session_id, :artifact, :bytes, :now, 1)
ON CONFLICT (upload) DO UPDATE SET is_saved = 1;

-- name: keep_noted
UPDATE lapse_uploads SET is_saved = 1 WHERE upload = :upload;

-- name: saved_uploads
-- What was not saved long after it was begun, never will be: its process has ended.
SELECT upload FROM lapse_uploads
WHERE user_id = :user_id AND app_name = :app_name AND session_id = :session_id
  AND artifact = :artifact AND (is_saved OR taken_at <= :now - :abandoned);

-- name: forget_uploads
DELETE FROM lapse_uploads WHERE upload IN (SELECT value FROM json_each(:uploads));
