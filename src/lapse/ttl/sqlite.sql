-- Observations of sessions, and the TTL decisions made from them.
--
-- Of one user and day only the sessions created first count; the others are the surplus.
-- segment_of(metadata), age_bucket(microseconds) and key_digest(app, user, session) are Python
-- functions.
--
-- Types of parameters and columns:
-- :max_age duration
-- :observed_at moment
-- :day day

-- name: observe_first_message
-- The legacy endpoint creates a session with its first message: that age says nothing about a TTL.
INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
SELECT :app_name, segment_of(:metadata), CASE WHEN :in_control THEN 'control' ELSE 'used' END,
  :user_id, :created_at, :now
WHERE :metadata ->> 'kind' IS NOT 'legacy-session';

-- name: observe_withdrawn
INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
SELECT app_name, segment_of(metadata), 'withdrawn', user_id, created_at, :now FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('waiting', 'expired');

-- name: observe_unused
-- The sessions that purge_due deletes next, in the same transaction.
INSERT INTO lapse_observations (app_name, segment, outcome, created_at, observed_at, sessions)
SELECT app_name, segment_of(metadata), 'unused',
  created_at / 86400000000 * 86400000000, :now, count(*)
FROM lapse_lobby
WHERE rowid IN (
    SELECT rowid FROM lapse_lobby AS l
    WHERE status = 'expired' AND restorable_until <= :now AND NOT {is_held} AND NOT {is_braked}
    ORDER BY restorable_until LIMIT :limit
  )
GROUP BY 1, 2, 4;

-- name: remember_purged
INSERT INTO lapse_purged (key_digest, app_name, segment, created_at, purged_at)
SELECT key_digest(app_name, user_id, session_id), app_name, segment_of(metadata), created_at, :now
FROM lapse_lobby
WHERE rowid IN (
    SELECT rowid FROM lapse_lobby AS l
    WHERE status = 'expired' AND restorable_until <= :now AND NOT {is_held} AND NOT {is_braked}
    ORDER BY restorable_until LIMIT :limit
  )
ON CONFLICT (key_digest) DO UPDATE
SET created_at = excluded.created_at, purged_at = excluded.purged_at;

-- name: observed
WITH ranked AS (
  SELECT app_name, segment, outcome, date(created_at / 1000000, 'unixepoch') AS day, sessions,
    age_bucket(observed_at - created_at) AS bucket,
    row_number() OVER (
      PARTITION BY app_name, outcome IN ('used', 'control'), user_id, created_at / 86400000000
      ORDER BY created_at, observed_at
    ) AS place
  FROM lapse_observations
)
SELECT app_name, segment, day, outcome, bucket, sum(sessions) AS sessions
FROM (
  SELECT app_name, segment, day, bucket, sessions,
    CASE WHEN outcome IN ('used', 'control') AND place > :most_per_user THEN 'surplus' ELSE outcome
    END AS outcome
  FROM ranked
  UNION ALL
  SELECT app_name, segment, day, bucket, sessions, outcome FROM lapse_observed_days
)
WHERE day >= :first_day
GROUP BY app_name, segment, day, outcome, bucket;

-- name: recent_first_messages
WITH ranked AS (
  SELECT app_name, segment, created_at, observed_at,
    row_number() OVER (
      PARTITION BY app_name, user_id, created_at / 86400000000 ORDER BY created_at, observed_at
    ) AS place_of_user
  FROM lapse_observations
  WHERE outcome IN ('used', 'control')
),
counted AS (
  SELECT *, row_number() OVER (
    PARTITION BY app_name, segment ORDER BY observed_at DESC
  ) AS place
  FROM ranked
  WHERE place_of_user <= :most_per_user AND observed_at > :now - :max_age
)
SELECT app_name, segment, observed_at, created_at FROM counted WHERE place <= :newest;

-- name: fold_observations
-- It counts exactly the rows that the statement after it deletes.
INSERT INTO lapse_observed_days (app_name, segment, day, outcome, bucket, sessions)
SELECT app_name, segment, day,
  CASE WHEN outcome IN ('used', 'control') AND place > :most_per_user THEN 'surplus' ELSE outcome
  END AS counted,
  bucket, sum(sessions)
FROM (
  SELECT app_name, outcome, date(created_at / 1000000, 'unixepoch') AS day, sessions,
    CASE
      WHEN EXISTS (
        SELECT 1 FROM json_each(:segments)
        WHERE value ->> 'app' = app_name AND value ->> 'segment' = segment
      ) THEN segment ELSE ''
    END AS segment,
    age_bucket(observed_at - created_at) AS bucket,
    row_number() OVER (
      PARTITION BY app_name, outcome IN ('used', 'control'), user_id, created_at / 86400000000
      ORDER BY created_at, observed_at
    ) AS place
  FROM lapse_observations
  WHERE created_at < :before
)
WHERE true
GROUP BY app_name, segment, day, counted, bucket
ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions;
DELETE FROM lapse_observations WHERE created_at < :before;
DELETE FROM lapse_purged WHERE purged_at < :forgotten;

-- name: refuse
-- The digest of the purged session is deleted, so a second message is not counted again.
INSERT INTO lapse_observations (app_name, segment, outcome, created_at, observed_at)
SELECT app_name, segment, 'refused', created_at, :now FROM lapse_purged
WHERE key_digest = key_digest(:app_name, :user_id, :session_id)
RETURNING outcome;
DELETE FROM lapse_purged WHERE key_digest = key_digest(:app_name, :user_id, :session_id);

-- name: ttl_round
SELECT r.slot, r.version FROM (SELECT 1) LEFT JOIN lapse_ttl_rounds AS r;

-- name: ttl_decisions
SELECT decision FROM (
  SELECT number, decision,
    row_number() OVER (PARTITION BY app_name, segment ORDER BY number DESC) AS place
  FROM lapse_ttl_decisions
)
WHERE place <= :newest ORDER BY number;

-- name: record_decisions
-- Of several processes that have read the same version, the first moves it; the condition of the
-- others then fails.
INSERT INTO lapse_ttl_rounds (id, slot, version)
SELECT 1, :slot, 1 WHERE :version = 0 OR EXISTS (SELECT 1 FROM lapse_ttl_rounds)
ON CONFLICT (id) DO UPDATE SET slot = excluded.slot, version = version + 1
WHERE version = :version
RETURNING version;
-- changes() is 0 if the statement above did nothing: another process had made the round.
INSERT INTO lapse_ttl_decisions (app_name, segment, decision)
SELECT value ->> '$.scope[0]', value ->> '$.scope[1]', value FROM json_each(:decisions)
WHERE changes() > 0;

-- name: lengthen_waiting
-- Lengthens a batch of the waiting sessions that have the former TTL. Sessions with a TTL of their
-- own keep it, and no deadline comes nearer.
UPDATE lapse_lobby SET ttl = :ttl, expires_at = created_at + :ttl
WHERE rowid IN (
    SELECT rowid FROM lapse_lobby
    WHERE status = 'waiting' AND expires_at > :now AND app_name = :app_name
      AND (:segment = '' OR segment_of(metadata) = :segment)
      AND ttl = :ttl_before AND expires_at < created_at + :ttl
    LIMIT :limit
  )
RETURNING *;
