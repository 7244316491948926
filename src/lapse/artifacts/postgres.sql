-- The outbox of ended sessions whose artifacts are to be deleted, and the artifacts that requests
-- have saved, by which the quota counts.
--
-- Types of parameters:
-- :ended_at timestamptz
-- :abandoned interval
-- :bytes, :most_bytes_kept bigint
-- :artifact, :upload varchar
-- :uploads varchar[]

-- name: owe_artifacts
-- A part of the statements that end sessions: their table `ended` has the rows.
INSERT INTO lapse_artifact_outbox AS o (app_name, user_id, session_id, ended_at, due_at)
SELECT app_name, user_id, session_id, now, now FROM ended
WHERE :artifacts
ON CONFLICT (app_name, user_id, session_id) DO UPDATE
SET ended_at = excluded.ended_at, due_at = excluded.due_at, attempts = 0

-- name: note_artifacts
-- No-op: owe_artifacts is a part of the statements of the transitions.

-- name: take_outbox
-- Takes sessions whose artifacts are due to be deleted, and sets the time of the next attempt.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT o.ctid FROM lapse_artifact_outbox AS o
  WHERE o.due_at <= (SELECT now FROM clock)
  ORDER BY o.due_at
  LIMIT :limit
  FOR UPDATE OF o SKIP LOCKED
)
UPDATE lapse_artifact_outbox AS o
SET attempts = o.attempts + 1,
  due_at = now + least(interval '1 minute' * (2 ^ least(o.attempts, 10)), interval '1 hour')
FROM due, clock
WHERE o.ctid = due.ctid
RETURNING o.app_name, o.user_id, o.session_id, o.ended_at, o.attempts;

-- name: take_outbox_of
-- Takes one session, whether it is due or not.
UPDATE lapse_artifact_outbox AS o
SET attempts = o.attempts + 1,
  due_at = coalesce(:now, clock_timestamp())
    + least(interval '1 minute' * (2 ^ least(o.attempts, 10)), interval '1 hour')
WHERE o.app_name = :app_name AND o.user_id = :user_id AND o.session_id = :session_id
RETURNING o.app_name, o.user_id, o.session_id, o.ended_at, o.attempts;

-- name: settle_outbox
-- What was saved after the end belongs to a new session of the same key.
WITH forgotten AS (
  DELETE FROM lapse_uploads
  WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
    AND taken_at <= :ended_at
)
DELETE FROM lapse_artifact_outbox
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND ended_at = :ended_at;

-- name: note_late_artifacts
-- Notes a session that ended while an artifact was being saved in it.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
INSERT INTO lapse_artifact_outbox AS o (app_name, user_id, session_id, ended_at, due_at)
SELECT :app_name, :user_id, :session_id, now, now FROM clock
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
-- A repeated statement may find the row of its first attempt.
INSERT INTO lapse_uploads (upload, user_id, app_name, session_id, artifact, bytes, taken_at)
SELECT :upload, :user_id, :app_name, :session_id, :artifact, :bytes,
  coalesce(:now, clock_timestamp())
WHERE :most_bytes_kept >= :bytes + (
  SELECT coalesce(sum(bytes), 0) FROM lapse_uploads
  WHERE user_id = :user_id AND upload <> :upload
)
ON CONFLICT (upload) DO UPDATE SET bytes = excluded.bytes
RETURNING upload;

-- name: note_upload
-- It counts for no bytes: there was no quota.
INSERT INTO lapse_uploads (upload, user_id, app_name, session_id, artifact, bytes, taken_at)
SELECT :upload, :user_id, :app_name, :session_id, :artifact, 0,
  coalesce(:now, clock_timestamp())
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
)

-- name: keep_upload
-- The row is gone if the session has ended meanwhile and its artifacts were deleted.
INSERT INTO lapse_uploads (
  upload, user_id, app_name, session_id, artifact, bytes, taken_at, is_saved
)
VALUES (
  :upload, :user_id, :app_name, :session_id, :artifact, :bytes,
  coalesce(:now, clock_timestamp()), true
)
ON CONFLICT (upload) DO UPDATE SET is_saved = true;

-- name: keep_noted
UPDATE lapse_uploads SET is_saved = true WHERE upload = :upload;

-- name: saved_uploads
-- What was not saved long after it was begun, never will be: its process has ended.
SELECT upload FROM lapse_uploads
WHERE user_id = :user_id AND app_name = :app_name AND session_id = :session_id
  AND artifact = :artifact
  AND (is_saved OR taken_at <= coalesce(:now, clock_timestamp()) - :abandoned);

-- name: forget_uploads
DELETE FROM lapse_uploads WHERE upload = ANY (:uploads);
