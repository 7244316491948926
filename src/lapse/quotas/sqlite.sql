-- Rate limits of creations, and the quotas of waiting sessions. lapse_turns holds the buckets.
--
-- Types of parameters and columns:
-- :wait, :span duration

-- name: draw
-- Draws a token from each bucket, or from none.
WITH ahead AS (
  SELECT b.value AS bucket,
    max(coalesce(t.full_at, 0), :now) + json_extract(:steps, '$[' || b.key || ']') AS full_at
  FROM json_each(:buckets) AS b LEFT JOIN lapse_turns AS t ON t.bucket = b.value
)
SELECT max(full_at - :now - :span, 0) AS wait, bucket FROM ahead ORDER BY full_at DESC LIMIT 1;
WITH ahead AS (
  SELECT b.value AS bucket,
    max(coalesce(t.full_at, 0), :now) + json_extract(:steps, '$[' || b.key || ']') AS full_at
  FROM json_each(:buckets) AS b LEFT JOIN lapse_turns AS t ON t.bucket = b.value
)
INSERT INTO lapse_turns (bucket, full_at)
SELECT bucket, full_at FROM ahead
WHERE NOT EXISTS (SELECT 1 FROM ahead WHERE full_at > :now + :span)
ON CONFLICT (bucket) DO UPDATE SET full_at = excluded.full_at;

-- name: forget_buckets
DELETE FROM lapse_turns WHERE full_at <= :now;

-- name: quiet_since
-- A part of expire_excess: when a session was created, extended or written to last. update_time is
-- ADK's text, whose seconds are cut off because unixepoch rounds their fraction up from .9995 on;
-- expires_at - ttl is when the session was created or last extended.
max(
  expires_at - ttl,
  unixepoch(substr(update_time, 1, 19)) * 1000000 + CAST(substr(update_time, 21, 6) AS INTEGER)
);

-- name: staying
-- A part of expire_excess: in which order sessions stay. The one that has just come to wait is first
-- whatever it says: a clock that was set back does not take a session from who has just got it.
ORDER BY (app_name, user_id, session_id) = (:app_name, :user_id, :session_id) DESC,
  {quiet_since} DESC, created_at DESC, session_id DESC;

-- name: expire_excess
-- The + in `+expires_at` keeps SQLite from using the index of deadlines, so that it reads only the
-- rows of the user and of the address.
WITH over AS (
  SELECT place_id, quiet_since FROM (
    SELECT rowid AS place_id, {quiet_since} AS quiet_since, row_number() OVER {staying} AS place
    FROM lapse_lobby
    WHERE user_id = :user_id AND status = 'waiting' AND +expires_at > :now
  ) WHERE place > :per_user
  UNION ALL
  SELECT place_id, quiet_since FROM (
    SELECT rowid AS place_id, {quiet_since} AS quiet_since, row_number() OVER {staying} AS place
    FROM lapse_lobby
    WHERE site = :site AND status = 'waiting' AND +expires_at > :now
  ) WHERE place > :per_site
)
UPDATE lapse_lobby
SET status = 'expired', expires_at = :now, expired_at = :now,
  restorable_until = :now + CASE WHEN :horizon > 0 THEN :shortest_restore ELSE 0 END
WHERE :enforced AND (:horizon > 0 OR NOT {is_braked})
  AND rowid IN (SELECT place_id FROM over ORDER BY quiet_since LIMIT :limit)
  AND status = 'waiting' AND expires_at > :now
  AND NOT EXISTS (
    SELECT 1 FROM sessions AS s
    WHERE s.app_name = lapse_lobby.app_name AND s.user_id = lapse_lobby.user_id
      AND s.id = lapse_lobby.session_id
  )
RETURNING *;

-- name: reuse_waiting
UPDATE lapse_lobby SET ttl = :ttl, expires_at = max(expires_at, :now + :ttl)
WHERE rowid = (
  SELECT rowid FROM lapse_lobby AS l
  WHERE app_name = :app_name AND user_id = :user_id
    AND status = 'waiting' AND (expires_at > :now OR NOT :enforced)
    AND held_events = '[]' AND state = '{}' AND metadata = :metadata AND used_by = :used_by
    AND :now + :ttl <= max(expires_at, created_at + :extensible)
    AND NOT {holds_upload}
    AND NOT EXISTS (
      SELECT 1 FROM sessions AS s
      WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
    )
  ORDER BY created_at DESC, session_id DESC LIMIT 1
)
RETURNING *;
