-- Rate limits of creations, and the quotas of waiting sessions. lapse_turns holds the buckets.
--
-- Types of parameters:
-- :per_site, :per_user bigint
-- :span interval
-- :steps interval[]
-- :buckets varchar[]

-- name: draw
-- Draws a token from each bucket, or from none. The buckets' rows are locked, in order, before
-- they are read. If one is missing, it is inserted, nothing is drawn and no row is returned: the
-- caller asks again. A bucket keeps which attempt drew last, so that a repeat draws nothing. The commit
-- does not wait for the disk.
WITH clock AS (
  SELECT coalesce(:now, clock_timestamp()) AS now
  FROM set_config('synchronous_commit', 'off', true) AS relaxed
),
wanted AS (SELECT * FROM unnest(:buckets, :steps) AS w (bucket, step)),
held AS (
  SELECT t.bucket, t.full_at, t.attempt FROM lapse_turns AS t
  WHERE t.bucket = ANY (:buckets) ORDER BY t.bucket
  FOR UPDATE
),
drawn AS (SELECT EXISTS (SELECT 1 FROM held WHERE attempt = :attempt) AS before),
made AS (
  INSERT INTO lapse_turns (bucket, full_at)
  SELECT bucket, now FROM wanted, clock
  WHERE bucket NOT IN (SELECT bucket FROM held) ORDER BY bucket
  ON CONFLICT DO NOTHING
),
ahead AS (
  SELECT bucket, greatest(held.full_at, now) + wanted.step AS full_at
  FROM clock, held JOIN wanted USING (bucket)
  WHERE (SELECT count(*) FROM held) = cardinality(:buckets)
),
worst AS (
  SELECT bucket, greatest(full_at - now - :span, interval '0') AS wait
  FROM ahead, clock ORDER BY full_at DESC LIMIT 1
),
taken AS (
  UPDATE lapse_turns AS t SET full_at = ahead.full_at, attempt = :attempt
  FROM ahead, worst, drawn
  WHERE t.bucket = ahead.bucket AND worst.wait = interval '0' AND NOT drawn.before
)
SELECT CASE WHEN drawn.before THEN interval '0' ELSE wait END AS wait, bucket FROM worst, drawn;

-- name: forget_buckets
DELETE FROM lapse_turns WHERE full_at <= coalesce(:now, clock_timestamp());

-- name: staying
-- A part of expire_excess: in which order sessions stay. The one that has just come to wait is first
-- whatever it says: a clock that was set back does not take a session from who has just got it.
-- expires_at - ttl is when a session was created or last extended.
ORDER BY (l.app_name, l.user_id, l.session_id) = (:app_name, :user_id, :session_id) DESC,
  greatest(l.expires_at - l.ttl, l.update_time AT TIME ZONE 'UTC') DESC,
  l.created_at DESC, l.session_id COLLATE "C" DESC;

-- name: expire_excess
-- A row that was changed after it was ranked has another address (ctid), and a locked row is being
-- changed: both are left alone.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
over AS (
  SELECT row_id FROM (
    SELECT l.ctid AS row_id, row_number() OVER {staying} AS place
    FROM lapse_lobby AS l, clock
    WHERE l.user_id = :user_id AND l.status = 'waiting' AND l.expires_at > now
  ) AS of_user WHERE place > :per_user
  UNION
  SELECT row_id FROM (
    SELECT l.ctid AS row_id, row_number() OVER {staying} AS place
    FROM lapse_lobby AS l, clock
    WHERE l.site = :site AND l.status = 'waiting' AND l.expires_at > now
  ) AS of_site WHERE place > :per_site
),
due AS (
  SELECT l.ctid FROM lapse_lobby AS l JOIN over ON l.ctid = over.row_id
  WHERE :enforced AND l.status = 'waiting'
    AND (:horizon > interval '0' OR NOT {is_braked})
    AND NOT EXISTS (
      SELECT 1 FROM sessions AS s
      WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
    )
  ORDER BY l.expires_at - l.ttl
  LIMIT :limit
  FOR UPDATE OF l SKIP LOCKED
),
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'expired', expires_at = now, expired_at = now,
    restorable_until = now + CASE
      WHEN :horizon > interval '0' THEN :shortest_restore ELSE interval '0'
    END
  FROM due, clock
  WHERE l.ctid = due.ctid AND l.status = 'waiting' AND l.expires_at > now
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'expired' AS kind, 'waiting' AS was, status AS became, now FROM done
),
counted AS {count_changes}
SELECT * FROM done;

-- name: reuse_waiting
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
newest AS (
  SELECT l.session_id FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id
    AND l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced)
    AND l.held_events = '[]' AND l.state = '{}' AND l.metadata = :metadata AND l.used_by = :used_by
    AND now + :ttl <= greatest(l.expires_at, l.created_at + :extensible)
    AND NOT {holds_upload}
    AND NOT EXISTS (
      SELECT 1 FROM sessions AS s
      WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
    )
  ORDER BY l.created_at DESC, l.session_id COLLATE "C" DESC LIMIT 1
),
taken AS (
  SELECT l.session_id, now FROM lapse_lobby AS l, newest, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = newest.session_id
    AND l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced)
    AND l.held_events = '[]'
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l SET ttl = :ttl, expires_at = greatest(l.expires_at, now + :ttl)
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = taken.session_id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'extended' AS kind, status AS was, status AS became, now FROM done
),
counted AS {count_changes}
SELECT * FROM done;
