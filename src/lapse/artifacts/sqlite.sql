-- The outbox: sessions that ended before their first message, whose artifacts are to be deleted.
--
-- Types of parameters and columns:
-- :ended_at moment

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
RETURNING app_name, user_id, session_id, ended_at, attempts,
  EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = lapse_artifact_outbox.app_name
      AND s.user_id = lapse_artifact_outbox.user_id AND s.id = lapse_artifact_outbox.session_id
  ) OR EXISTS (
    SELECT 1 FROM lapse_lobby AS l
    WHERE l.app_name = lapse_artifact_outbox.app_name
      AND l.user_id = lapse_artifact_outbox.user_id
      AND l.session_id = lapse_artifact_outbox.session_id
  ) AS lives;

-- name: settle_outbox
DELETE FROM lapse_artifact_outbox
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND ended_at = :ended_at;
