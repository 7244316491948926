-- Erasing what is kept of a user. :owners are the digests by which idempotency keys are counted, :bucket
-- is the user's bucket of tokens, and :pseudonym stands for the user in observations.

-- name: apps_to_erase
-- The apps in which something waits to be done for a user, beside those of `apps_of_user`.
SELECT app_name FROM lapse_artifact_outbox WHERE user_id = :user_id
UNION SELECT app_name FROM lapse_memory_outbox WHERE user_id = :user_id
UNION SELECT app_name FROM lapse_uploads WHERE user_id = :user_id
UNION SELECT app_name FROM lapse_webhook_outbox WHERE user_id = :user_id
ORDER BY 1;

-- name: known_apps
-- Every app that was ever counted: a digest of one of them and of the user owns a key.
SELECT app_name FROM lapse_levels UNION SELECT app_name FROM lapse_counts ORDER BY 1;

-- name: count_sessions_to_erase
SELECT (
    SELECT count(*) FROM sessions WHERE app_name = :app_name AND user_id = :user_id
  ) + (
    SELECT count(*) FROM lapse_lobby AS l
    WHERE l.app_name = :app_name AND l.user_id = :user_id AND NOT EXISTS (
      SELECT 1 FROM sessions AS s
      WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
    )
  ) AS sessions,
  (SELECT count(*) FROM events WHERE app_name = :app_name AND user_id = :user_id) AS events,
  (
    SELECT count(*) FROM lapse_lobby
    WHERE app_name = :app_name AND user_id = :user_id
      AND status IN ('moving', 'elsewhere', 'deleting')
  ) AS elsewhere;

-- name: ids_to_erase
-- The ids of a user's sessions in an app. Those that another service has, or is about to, are left out
-- unless :everywhere.
SELECT id AS session_id FROM sessions
WHERE app_name = :app_name AND user_id = :user_id AND id > :after_id
UNION SELECT session_id FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id > :after_id
  AND (:everywhere OR status NOT IN ('moving', 'elsewhere', 'deleting'))
ORDER BY 1 LIMIT :limit;

-- name: event_ids
SELECT id AS event_id FROM events
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id AND id > :after_id
ORDER BY id LIMIT :limit;

-- name: erase_traces
-- What names sessions that are deleted, by an id or a digest of a key alone.
DELETE FROM lapse_purged
WHERE key_digest IN (
  SELECT key_digest(:app_name, :user_id, value) FROM json_each(:session_ids)
);

-- name: erase_attempts
-- No-op: nothing is in doubt here, so there are no notes.

-- name: owed_artifacts
SELECT app_name, user_id, session_id FROM lapse_artifact_outbox WHERE user_id = :user_id
ORDER BY app_name, session_id LIMIT :limit;

-- name: count_owed_artifacts
SELECT count(*) AS found FROM lapse_artifact_outbox WHERE user_id = :user_id;

-- name: settle_owed
DELETE FROM lapse_artifact_outbox
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: owed_memory
SELECT id, app_name, user_id, session_id, event_ids, attempts FROM lapse_memory_outbox
WHERE user_id = :user_id
ORDER BY id LIMIT :limit;

-- name: count_owed_memory
SELECT count(*) AS found FROM lapse_memory_outbox WHERE user_id = :user_id;

-- name: keeps_old_tables
SELECT EXISTS (
  SELECT 1 FROM sqlite_master
  WHERE name IN ('lapse_v0_events', 'lapse_v1_events', 'lapse_undone_events')
) AS found;

-- name: may_redact
SELECT true AS may;

-- name: acts_of_sessions
SELECT count(*) AS found FROM lapse_audit WHERE digest IN (SELECT value FROM json_each(:digests));

-- name: is_own_act
-- A condition on an act: it is the user's own, of which deletions alone are recorded, or its detail
-- names the user. An operator may have the same name.
principal = :user_id AND action = 'deleted' OR detail ->> 'user' = :user_digest

-- name: acts_of_user
SELECT count(*) AS found FROM lapse_audit WHERE {is_own_act};

-- name: unlock_audit
DROP TRIGGER IF EXISTS lapse_audit_no_update;

-- name: redact_sessions
UPDATE lapse_audit SET session = NULL, digest = NULL, detail = '{}'
WHERE digest IN (SELECT value FROM json_each(:digests))
RETURNING number;

-- name: redact_user
UPDATE lapse_audit
SET principal = CASE WHEN action = 'deleted' THEN 'erased' ELSE principal END,
  session = NULL, digest = NULL, detail = '{}'
WHERE {is_own_act}
RETURNING number;

-- name: lock_audit
CREATE TRIGGER lapse_audit_no_update BEFORE UPDATE ON lapse_audit BEGIN
  SELECT RAISE(ABORT, 'lapse_audit is append-only');
END;

-- name: count_user_states
SELECT count(*) AS found FROM user_states WHERE app_name = :app_name AND user_id = :user_id;

-- name: erase_user_states
DELETE FROM user_states WHERE app_name = :app_name AND user_id = :user_id RETURNING 1;

-- name: count_runs
SELECT count(*) AS found FROM lapse_runs WHERE app_name = :app_name AND user_id = :user_id;

-- name: erase_runs
DELETE FROM lapse_runs WHERE rowid IN (
  SELECT rowid FROM lapse_runs WHERE app_name = :app_name AND user_id = :user_id LIMIT :limit
) RETURNING 1;

-- name: count_uploads
SELECT count(*) AS found FROM lapse_uploads WHERE user_id = :user_id;

-- name: erase_uploads
DELETE FROM lapse_uploads WHERE rowid IN (
  SELECT rowid FROM lapse_uploads WHERE user_id = :user_id LIMIT :limit
) RETURNING 1;

-- name: count_webhook_events
SELECT count(*) AS found FROM lapse_webhook_outbox WHERE user_id = :user_id;

-- name: erase_webhook_events
DELETE FROM lapse_webhook_outbox WHERE id IN (
  SELECT id FROM lapse_webhook_outbox WHERE user_id = :user_id LIMIT :limit
) RETURNING 1;

-- name: count_observations
SELECT count(*) AS found FROM lapse_observations WHERE user_id = :user_id;

-- name: erase_observations
-- The statistics stay: what one user did still counts as one user's.
UPDATE lapse_observations SET user_id = :pseudonym WHERE rowid IN (
  SELECT rowid FROM lapse_observations WHERE user_id = :user_id LIMIT :limit
) RETURNING 1;

-- name: count_idempotency_keys
SELECT count(*) AS found FROM lapse_idempotency
WHERE owner IN (SELECT value FROM json_each(:owners));

-- name: erase_idempotency_keys
DELETE FROM lapse_idempotency WHERE rowid IN (
  SELECT rowid FROM lapse_idempotency
  WHERE owner IN (SELECT value FROM json_each(:owners)) LIMIT :limit
) RETURNING 1;

-- name: count_rate_limits
SELECT count(*) AS found FROM lapse_turns WHERE bucket = :bucket;

-- name: erase_rate_limits
DELETE FROM lapse_turns WHERE bucket = :bucket RETURNING 1;

-- name: begin_erasure
-- One statement keeps and reads: between two, another erasure of the user could end and delete the row.
INSERT INTO lapse_erasures AS e (user_digest, found, began_at)
VALUES (:user_digest, :counts_before, :now)
ON CONFLICT (user_digest) DO UPDATE SET found = e.found
RETURNING found AS counts_before;

-- name: end_erasure
DELETE FROM lapse_erasures WHERE user_digest = :user_digest RETURNING 1 AS ended;
