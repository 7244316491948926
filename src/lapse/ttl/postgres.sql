-- Observations of sessions, and the TTL decisions made from them.
--
-- The statements first_message, delete_record and purge_due contain the writing of observations.
-- Of one user and day only the sessions created first count; the others are the surplus. The
-- bucket of an age is the number of edges below it, less one. :edges are in microseconds, and the
-- first is 0.
--
-- Types of parameters:
-- :most_per_user, :slot, :version bigint
-- :edges bigint[]
-- :first_day date
-- :max_age, :ttl_before interval
-- :decisions, :segments jsonb
-- :segment text
-- :before, :forgotten timestamptz

-- name: observed
WITH ranked AS (
  SELECT app_name, segment, outcome, (created_at AT TIME ZONE 'UTC')::date AS day, sessions,
    greatest(0, width_bucket(
      (extract(epoch FROM observed_at - created_at) * 1000000)::bigint - 1, :edges
    ) - 1) AS bucket,
    row_number() OVER (
      PARTITION BY app_name, outcome IN ('used', 'control'), user_id,
        (created_at AT TIME ZONE 'UTC')::date
      ORDER BY created_at, observed_at
    ) AS place
  FROM lapse_observations
)
SELECT app_name, segment, day, outcome, bucket, sum(sessions)::bigint AS sessions
FROM (
  SELECT app_name, segment, day, bucket, sessions,
    CASE WHEN outcome IN ('used', 'control') AND place > :most_per_user THEN 'surplus' ELSE outcome
    END AS outcome
  FROM ranked
  UNION ALL
  SELECT app_name, segment, day, bucket, sessions, outcome FROM lapse_observed_days
) AS counts
WHERE day >= :first_day
GROUP BY app_name, segment, day, outcome, bucket;

-- name: recent_first_messages
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
ranked AS (
  SELECT app_name, segment, created_at, observed_at,
    row_number() OVER (
      PARTITION BY app_name, user_id, (created_at AT TIME ZONE 'UTC')::date
      ORDER BY created_at, observed_at
    ) AS place_of_user
  FROM lapse_observations
  WHERE outcome IN ('used', 'control')
),
counted AS (
  SELECT ranked.*,
    row_number() OVER (PARTITION BY app_name, segment ORDER BY observed_at DESC) AS place
  FROM ranked, clock
  WHERE place_of_user <= :most_per_user AND observed_at > now - :max_age
)
SELECT app_name, segment, observed_at, created_at FROM counted WHERE place <= :newest;

-- name: fold_observations
-- It counts exactly the rows that it deletes, so several processes may fold at the same time.
WITH gone AS (
  DELETE FROM lapse_observations WHERE created_at < :before RETURNING *
),
ranked AS (
  SELECT app_name, outcome, (created_at AT TIME ZONE 'UTC')::date AS day, sessions,
    CASE
      WHEN :segments @> jsonb_build_array(
        jsonb_build_object('app', app_name, 'segment', segment)
      ) THEN segment ELSE ''
    END AS segment,
    greatest(0, width_bucket(
      (extract(epoch FROM observed_at - created_at) * 1000000)::bigint - 1, :edges
    ) - 1) AS bucket,
    row_number() OVER (
      PARTITION BY app_name, outcome IN ('used', 'control'), user_id,
        (created_at AT TIME ZONE 'UTC')::date
      ORDER BY created_at, observed_at
    ) AS place
  FROM gone
),
pruned AS (
  DELETE FROM lapse_purged WHERE purged_at < :forgotten
)
INSERT INTO lapse_observed_days AS d (app_name, segment, day, outcome, bucket, sessions)
SELECT app_name, segment, day, outcome, bucket, sum(sessions)
FROM (
  SELECT app_name, segment, day, bucket, sessions,
    CASE WHEN outcome IN ('used', 'control') AND place > :most_per_user THEN 'surplus' ELSE outcome
    END AS outcome
  FROM ranked
) AS counts
GROUP BY app_name, segment, day, outcome, bucket
ORDER BY app_name, segment, day, outcome, bucket
ON CONFLICT (app_name, segment, day, outcome, bucket)
DO UPDATE SET sessions = d.sessions + excluded.sessions;

-- name: refuse
-- The digest of the purged session is deleted, so a second message is not counted again.
WITH gone AS (
  DELETE FROM lapse_purged
  WHERE key_digest = sha256(convert_to(concat_ws(E'\x1f', :app_name, :user_id, :session_id), 'UTF8'))
  RETURNING *
)
INSERT INTO lapse_observations (app_name, segment, outcome, created_at, observed_at)
SELECT app_name, segment, 'refused', created_at, coalesce(:now, clock_timestamp()) FROM gone
RETURNING outcome;

-- name: ttl_round
SELECT coalesce(:now, clock_timestamp()) AS now, r.slot, r.version
FROM (SELECT 1) AS always LEFT JOIN lapse_ttl_rounds AS r ON true;

-- name: ttl_decisions
SELECT decision FROM (
  SELECT number, decision,
    row_number() OVER (PARTITION BY app_name, segment ORDER BY number DESC) AS place
  FROM lapse_ttl_decisions
) AS ranked
WHERE place <= :newest ORDER BY number;

-- name: record_decisions
-- Of several processes that have read the same version, the first moves it; the condition of the
-- others then fails.
WITH done AS (
  INSERT INTO lapse_ttl_rounds AS r (id, slot, version)
  SELECT 1, :slot, 1
  WHERE :version = 0 OR EXISTS (SELECT 1 FROM lapse_ttl_rounds)
  ON CONFLICT (id) DO UPDATE SET slot = excluded.slot, version = r.version + 1
  WHERE r.version = :version
  RETURNING version
),
kept AS (
  INSERT INTO lapse_ttl_decisions (app_name, segment, decision)
  SELECT d -> 'scope' ->> 0, d -> 'scope' ->> 1, d
  FROM done, jsonb_array_elements(:decisions) AS d
),
noted AS {noted}
SELECT version FROM done;

-- name: lengthen_waiting
-- Lengthens a batch of the waiting sessions that have the former TTL. Sessions with a TTL of their
-- own keep it, and no deadline comes nearer.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
shorter AS (
  SELECT l.ctid FROM lapse_lobby AS l
  WHERE l.status = 'waiting' AND l.expires_at > (SELECT now FROM clock)
    AND l.app_name = :app_name AND (:segment = '' OR lapse_segment(l.metadata) = :segment)
    AND l.ttl = :ttl_before AND l.expires_at < l.created_at + :ttl
  LIMIT (SELECT :limit)
  FOR UPDATE OF l SKIP LOCKED
),
done AS (
  UPDATE lapse_lobby AS l
  SET ttl = :ttl, expires_at = l.created_at + :ttl
  FROM clock
  WHERE l.ctid = ANY (ARRAY(SELECT ctid FROM shorter)) AND l.status = 'waiting'
    AND l.ttl = :ttl_before AND l.expires_at > now AND l.expires_at < l.created_at + :ttl
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'extended' AS kind, 'waiting' AS was, 'waiting' AS became, now FROM done
),
counted AS {count_changes}
SELECT * FROM done;

-- name: observe_first_message
-- No-op: observe_used is a part of the statements that make a session used.

-- name: observe_withdrawn
-- No-op: delete_record contains it.

-- name: observe_unused
-- No-op: purge_due contains it.

-- name: remember_purged
-- No-op: purge_due contains it.
