-- The outbox: sessions that ended before their first message, whose artifacts are to be deleted.
--
-- Types of parameters:
-- :ended_at timestamptz

-- name: owe_artifacts
-- A part of the statements that end sessions: their table `ended` has the rows.
INSERT INTO lapse_artifact_outbox AS o (app_name, user_id, session_id, ended_at, due_at)
SELECT app_name, user_id, session_id, now, now FROM ended
WHERE :artifacts AND status <> 'used'
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
RETURNING o.app_name, o.user_id, o.session_id, o.ended_at, o.attempts,
  EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = o.app_name AND s.user_id = o.user_id AND s.id = o.session_id
  ) OR EXISTS (
    SELECT 1 FROM lapse_lobby AS l
    WHERE l.app_name = o.app_name AND l.user_id = o.user_id AND l.session_id = o.session_id
  ) AS lives;

-- name: settle_outbox
DELETE FROM lapse_artifact_outbox
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND ended_at = :ended_at;
