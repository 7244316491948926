-- The brake of the sweepers, the count of what is due, and the time of the last sweep.
--
-- Types of parameters:
-- :sessions bigint
-- :confirmed, :jump interval
-- :braked_at, :braked_until timestamptz
-- :reason varchar

-- name: is_braked
-- A part of the statements that a brake holds.
SELECT EXISTS (SELECT 1 FROM lapse_brakes WHERE released_at IS NULL)

-- name: brake
SELECT reason, since AS braked_at, until AS braked_until, sessions AS held_back, jump
FROM lapse_brakes WHERE released_at IS NULL;

-- name: set_brake
-- A brake for the share is not set again while the release of the last brake counts as confirmed. A
-- brake is known by its reason and `since`: a repeat does not set it again after its release.
WITH done AS (
  INSERT INTO lapse_brakes AS b (id, reason, since, until, sessions, jump)
  VALUES (1, :reason, :braked_at, :braked_until, :sessions, :jump)
  ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, since = excluded.since,
    until = excluded.until, sessions = excluded.sessions, jump = excluded.jump, released_at = NULL
  WHERE (
    b.released_at IS NOT NULL
    OR excluded.reason = 'clock' AND (b.reason = 'share' OR b.until <= excluded.since)
  )
  AND NOT (
    excluded.reason = 'share'
    AND b.released_at <= excluded.since AND excluded.since < b.released_at + :confirmed
  )
  AND (b.reason, b.since) <> (excluded.reason, excluded.since)
  RETURNING id
),
noted AS {noted}
SELECT id FROM done;

-- name: release_brake
WITH done AS (
  UPDATE lapse_brakes SET released_at = coalesce(:now, clock_timestamp())
  WHERE released_at IS NULL AND since = :braked_at
  RETURNING id
),
noted AS {noted}
SELECT id FROM done;

-- name: dues
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
SELECT now,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby
    WHERE status = 'waiting' AND expires_at > '-infinity'
      AND expires_at <= (SELECT now FROM clock) LIMIT :most
  ) AS due) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby AS l
    WHERE status = 'expired' AND restorable_until > '-infinity'
      AND restorable_until <= (SELECT now FROM clock)
      AND NOT {is_held} LIMIT :most
  ) AS due) AS purge,
  (SELECT coalesce(sum(sessions), 0)::bigint FROM {levels} AS levels) AS stored,
  b.reason, b.since AS braked_at, b.until AS braked_until, b.sessions AS held_back, b.jump
FROM clock LEFT JOIN lapse_brakes AS b ON b.released_at IS NULL;

-- name: mark_swept
INSERT INTO lapse_sweeps (id, swept_at) VALUES (1, coalesce(:now, clock_timestamp()))
ON CONFLICT (id) DO UPDATE SET swept_at = excluded.swept_at
RETURNING swept_at;

-- name: expire_backlog
-- Takes rows as `expire_due` does, for the same reasons. It answers with a row for each app, because a
-- row for each session would cost more than its expiry. The session in ADK's tables is looked for in a
-- sub-select that yields a value: an anti-join could read the whole table.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT l.ctid FROM lapse_lobby AS l
  WHERE l.status = 'waiting' AND l.expires_at > '-infinity'
    AND l.expires_at <= (SELECT now FROM clock)
    AND l.first_message_at IS NULL
    AND (:horizon > interval '0' OR NOT {is_braked})
    AND (
      SELECT s.id FROM sessions AS s
      WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
    ) IS NULL
  ORDER BY l.expires_at
  LIMIT (SELECT :limit)
  FOR UPDATE OF l SKIP LOCKED
),
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'expired', expired_at = now,
    restorable_until = {restorable_until}
  FROM clock, unnest((SELECT array_agg(ctid) FROM due)) AS taken (ctid)
  WHERE l.ctid = taken.ctid AND l.status = 'waiting' AND l.expires_at <= now
  RETURNING l.app_name, l.user_id, l.session_id, l.expires_at, now
),
changes AS (
  SELECT app_name, 'expired' AS kind, 'waiting' AS was, 'expired' AS became, now FROM done
),
counted AS {count_changes}
SELECT app_name, now,
  json_agg((extract(epoch FROM now - expires_at) * 1000000)::bigint)::text AS latenesses,
  json_agg(json_build_array(user_id, session_id))::text AS named
FROM done GROUP BY app_name, now;
