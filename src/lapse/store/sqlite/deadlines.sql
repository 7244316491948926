-- What ends a session or gives it longer: deletion, its TTL, expiry, resurrection, purge; and the
-- look at the database itself. The types of parameters are in sessions.sql.

-- name: delete_record
DELETE FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('waiting', 'expired', 'used', 'archived') AND NOT {key_is_held}
RETURNING *;

-- name: delete_session
-- ON DELETE CASCADE deletes its events and its record, too.
DELETE FROM sessions WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  AND NOT {key_is_held}
RETURNING id;

-- name: amend
UPDATE lapse_lobby
SET metadata = CASE
    WHEN :metadata IS NULL THEN metadata ELSE update_document(metadata, :metadata)
  END,
  ttl = coalesce(:ttl, ttl),
  expires_at = CASE WHEN :ttl IS NULL THEN expires_at ELSE :now + :ttl END
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND (:ttl IS NULL OR status = 'waiting' AND (expires_at > :now OR NOT :enforced))
  AND (
    :metadata IS NULL OR length(update_document(metadata, :metadata)) <= :largest_metadata
  )
  AND CASE status
    WHEN 'waiting' THEN expires_at > :now OR :horizon > 0 OR NOT :enforced
    WHEN 'expired' THEN restorable_until > :now OR NOT :enforced
    ELSE status <> 'deleting'
  END
  AND (used_id IS NULL OR EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = used_id
  ))
RETURNING *, {key_is_held} AS is_held;

-- name: extend
UPDATE lapse_lobby
SET expires_at = max(expires_at, min(:now + ttl, created_at + :extensible))
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'waiting' AND (expires_at > :now OR NOT :enforced)
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
RETURNING *, {key_is_held} AS is_held;

-- name: hold_off
-- Moves the deadlines of sessions ahead in which runs are in flight. It returns those that wait.
UPDATE lapse_lobby SET expires_at = :now + :held_for
WHERE (app_name, user_id, session_id) IN (
    SELECT a.value, u.value, s.value FROM json_each(:app_names) AS a
    JOIN json_each(:user_ids) AS u ON u.key = a.key JOIN json_each(:session_ids) AS s ON s.key = a.key
  )
  AND status = 'waiting' AND (expires_at > :now OR NOT :enforced) AND used_by = 'user'
  AND expires_at < :now + :held_for;
SELECT app_name, user_id, session_id FROM lapse_lobby
WHERE (app_name, user_id, session_id) IN (
    SELECT a.value, u.value, s.value FROM json_each(:app_names) AS a
    JOIN json_each(:user_ids) AS u ON u.key = a.key JOIN json_each(:session_ids) AS s ON s.key = a.key
  )
  AND status = 'waiting' AND (expires_at > :now OR NOT :enforced) AND used_by = 'user';

-- name: restart_ttl
-- Gives a session a fresh TTL where a run begins or has ended. A deadline as near as a hold sets them
-- comes nearer if the TTL is short; a later one is not a hold's, and stays.
UPDATE lapse_lobby
SET expires_at = CASE
  WHEN expires_at <= :now + :held_for THEN :now + ttl ELSE max(expires_at, :now + ttl)
END
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'waiting' AND (expires_at > :now OR NOT :enforced) AND used_by = 'user'
RETURNING *;

-- name: resurrect
UPDATE lapse_lobby
SET status = 'waiting', expires_at = :now + ttl, expired_at = NULL, restorable_until = NULL,
  resurrections = resurrections + 1
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND (
    status = 'waiting' AND expires_at <= :now AND :horizon > 0 AND :enforced
    OR status = 'expired' AND (restorable_until > :now OR NOT :enforced)
  )
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
RETURNING *, {key_is_held} AS is_held;

-- name: restorable_until
-- Until when a lobby row is restorable, if it expires now.
CASE
  WHEN :horizon > 0 THEN max(created_at + :horizon, :now + :shortest_restore) ELSE :now
END;

-- name: expire
UPDATE lapse_lobby
SET status = 'expired', expires_at = :now, expired_at = :now,
  restorable_until = {restorable_until}
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND :enforced AND status = 'waiting' AND expires_at > :now
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
RETURNING *, {key_is_held} AS is_held;

-- name: expire_due
-- First the sessions that ADK's tables hold although their lobby row waits: stock ADK created one
-- of the same key. Lapse never expires them; it marks them as used.
UPDATE lapse_lobby
SET status = 'used', first_message_at = :now, expires_at = NULL, state = NULL, held_events = NULL
WHERE rowid IN (
    SELECT rowid FROM lapse_lobby
    WHERE status = 'waiting' AND expires_at <= :now ORDER BY expires_at LIMIT :limit
  )
  AND status = 'waiting' AND expires_at <= :now AND (:horizon > 0 OR NOT {is_braked})
  AND EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = lapse_lobby.app_name AND s.user_id = lapse_lobby.user_id
      AND s.id = lapse_lobby.session_id
  )
RETURNING *;
-- Then all others. The condition is repeated outside the sub-select, whose list of due rows is
-- only a hint.
UPDATE lapse_lobby
SET status = 'expired', expired_at = :now,
  restorable_until = {restorable_until}
WHERE rowid IN (
    SELECT rowid FROM lapse_lobby
    WHERE status = 'waiting' AND expires_at <= :now ORDER BY expires_at LIMIT :limit - changes()
  )
  AND status = 'waiting' AND expires_at <= :now AND (:horizon > 0 OR NOT {is_braked})
  AND NOT EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = lapse_lobby.app_name AND s.user_id = lapse_lobby.user_id
      AND s.id = lapse_lobby.session_id
  )
RETURNING *;

-- name: purge_due
-- Nothing that is on hold is purged.
DELETE FROM lapse_lobby
WHERE rowid IN (
    SELECT rowid FROM lapse_lobby AS l
    WHERE status = 'expired' AND restorable_until <= :now AND NOT {is_held} ORDER BY restorable_until LIMIT :limit
  )
  AND status = 'expired' AND restorable_until <= :now AND NOT {is_braked}
RETURNING *;

-- name: time_to_next
-- Counts only what a sweep may do: a brake holds purges and, if nothing is restorable, expiry, too.
SELECT min(due) - :now AS ahead FROM (
  SELECT * FROM (
    SELECT expires_at AS due FROM lapse_lobby
    WHERE status = 'waiting'
      AND (:horizon > 0 OR NOT {is_braked})
    ORDER BY expires_at LIMIT 1
  )
  UNION ALL
  SELECT * FROM (
    SELECT restorable_until AS due FROM lapse_lobby AS l
    WHERE status = 'expired'
      AND NOT {is_held} AND NOT {is_braked}
    ORDER BY restorable_until LIMIT 1
  )
);

-- name: attempt
-- No-op: an operation is one transaction in this process, so its outcome is never in doubt.

-- name: forget_attempts
-- No-op, likewise.

-- name: confirm
-- No-op: what can be read here is as durable as what was written with an answer.

-- name: status_before
-- Changes are counted by the status before.
SELECT status FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: ping
-- The bytes are new each time: SQLite does not write a page that stays as it is.
INSERT INTO lapse_pings (id, at, filler) VALUES (1, :now, randomblob(16384))
ON CONFLICT (id) DO UPDATE SET at = excluded.at, filler = excluded.filler;

-- name: read_ping
-- Another connection reads it, from the log or the file. The sum reads every page of the row.
SELECT at, length(hex(filler)) AS filler, (SELECT count(*) FROM (SELECT 1 FROM lapse_lobby LIMIT 1))
  AS lobby
FROM lapse_pings;

-- name: lock
-- No-op: SQLite has one writer at a time.

-- name: indexes
-- Like the next statement, it runs on a database of any version that nobody has opened.
SELECT name, true AS valid FROM sqlite_master WHERE type = 'index';

-- name: inspect_sessions
SELECT
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'waiting' AND expires_at <= :now LIMIT :most
  )) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'expired' AND restorable_until <= :now LIMIT :most
  )) AS purge,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'expired' AND first_message_at IS NOT NULL LIMIT :most
  )) AS used_but_expired;
