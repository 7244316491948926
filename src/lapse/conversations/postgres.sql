-- The hand-over of sessions to another service, and back out of it; see sqlite.sql.
--
-- Types of parameters:
-- :fence bigint
-- :lease interval
-- :mark varchar
-- :message, :service_id text

-- name: place
SELECT l.status, l.mark, l.fence, l.service_id,
  l.lease_until - coalesce(:now, clock_timestamp()) AS lease_left, s.id IS NOT NULL AS is_stored
FROM (SELECT 1) AS always
LEFT JOIN lapse_lobby AS l
  ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
LEFT JOIN sessions AS s
  ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id;

-- name: before_claim
-- No-op: claim tells it.

-- name: claim
-- The row's lock decides between it and a sweep, a delete or another first message.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.status, now, l.status = 'expired' OR :enforced AND l.expires_at <= now AS was_expired
  FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND {may_be_used}
    AND (l.lease_until IS NULL OR l.lease_until <= now)
    AND NOT EXISTS (
      SELECT 1 FROM sessions
      WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
    )
  FOR UPDATE OF l
),
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'moving', mark = coalesce(l.mark, :mark), fence = :fence,
    lease_until = now + :lease, message = :message, first_message_at = now,
    revision = l.revision + 1, resurrections = l.resurrections + was_expired::int,
    expires_at = NULL, expired_at = CASE WHEN was_expired THEN now END,
    restorable_until = NULL
  FROM taken
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now, was_expired, taken.status AS was
),
changes AS (
  SELECT app_name, 'resurrected' AS kind, was, 'waiting' AS became, now FROM done WHERE was_expired
),
counted AS {count_changes}
SELECT * FROM done;

-- name: held_by
SELECT *, coalesce(:now, clock_timestamp()) AS now FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id AND fence = :fence;

-- name: take_over
UPDATE lapse_lobby
SET fence = :fence, lease_until = coalesce(:now, clock_timestamp()) + :lease
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('moving', 'deleting') AND lease_until <= coalesce(:now, clock_timestamp())
RETURNING *;

-- name: renew
UPDATE lapse_lobby
SET lease_until = coalesce(:now, clock_timestamp()) + :lease,
  service_id = coalesce(:service_id, service_id)
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('moving', 'deleting') AND mark = :mark AND fence = :fence
RETURNING fence;

-- name: settle
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
marked AS (
  UPDATE lapse_lobby AS l
  SET status = 'elsewhere', service_id = :service_id, lease_until = NULL, message = NULL,
    expired_at = NULL, state = '{}', held_events = '[]', site = NULL
  FROM clock
  WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
    AND status = 'moving' AND mark = :mark AND fence = :fence
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'used' AS kind, 'waiting' AS was, 'used' AS became, now FROM marked
),
counted AS {count_changes},
observed AS {observe_used}
SELECT * FROM marked;

-- name: note_refusal
UPDATE lapse_lobby SET message = NULL, first_message_at = NULL
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'moving' AND mark = :mark AND fence = :fence
RETURNING fence;

-- name: take_back
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'waiting', expires_at = now + ttl, expired_at = NULL, lease_until = NULL,
    service_id = NULL, revision = revision - 1
  FROM clock
  WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
    AND status = 'moving' AND message IS NULL AND mark = :mark AND fence = :fence
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'extended' AS kind, 'waiting' AS was, 'waiting' AS became, now FROM done
),
counted AS {count_changes}
SELECT *, {near_deadline_told} AS notified FROM done;

-- name: before_delete
SELECT *, coalesce(:now, clock_timestamp()) AS now FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
FOR UPDATE;

-- name: begin_delete
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
before AS (
  SELECT * FROM lapse_lobby
  WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  FOR UPDATE
),
done AS (
  INSERT INTO lapse_lobby AS l (
    app_name, user_id, session_id, status, created_at, first_message_at, ttl, state, held_events,
    update_time, mark, fence, lease_until
  )
  SELECT :app_name, :user_id, :session_id, 'deleting', now, now, interval '0', '{}', '[]',
    timestamp 'epoch', :mark, :fence, now + :lease
  FROM clock
  WHERE NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
  ON CONFLICT (app_name, user_id, session_id) DO UPDATE SET
    status = 'deleting', mark = coalesce(l.mark, excluded.mark), fence = excluded.fence,
    first_message_at = coalesce(l.first_message_at, excluded.first_message_at),
    lease_until = excluded.lease_until, message = NULL, expires_at = NULL, expired_at = NULL,
    restorable_until = NULL, state = '{}', held_events = '[]', site = NULL
  WHERE l.status = (SELECT status FROM before)
    AND l.status <> 'used'
    AND (l.lease_until IS NULL OR l.lease_until <= (SELECT now FROM clock))
  RETURNING l.*
),
changes AS (
  SELECT app_name,
    CASE
      WHEN NOT :enforced OR CASE status
          WHEN 'waiting' THEN expires_at > now OR :horizon > interval '0'
          WHEN 'expired' THEN restorable_until > now
          ELSE true
        END THEN 'deleted' ELSE ''
    END AS kind,
    {counts_as} AS was, '' AS became, now
  FROM before, clock WHERE EXISTS (SELECT 1 FROM done) AND status <> 'deleting'
),
counted AS {count_changes},
observed AS (
  INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
  SELECT app_name, lapse_segment(metadata), 'withdrawn', user_id, created_at, now
  FROM before, clock WHERE EXISTS (SELECT 1 FROM done) AND status IN ('waiting', 'expired')
),
ended AS (
  SELECT app_name, user_id, session_id, now FROM before, clock WHERE EXISTS (SELECT 1 FROM done)
),
owed AS {owe_artifacts}
SELECT done.*, now FROM done, clock;

-- name: observe_deleted
-- No-op: begin_delete contains it.

-- name: reserve
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, state, held_events, update_time, mark,
  fence, lease_until
)
SELECT :app_name, :user_id, :session_id, 'deleting', now, interval '0', '{}', '[]',
  timestamp 'epoch', :mark, :fence, now + :lease
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock
WHERE NOT EXISTS (
  SELECT 1 FROM sessions
  WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
)
ON CONFLICT DO NOTHING
RETURNING fence;

-- name: end_delete
DELETE FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'deleting' AND mark = :mark AND fence = :fence
RETURNING fence;

-- name: guard
UPDATE lapse_lobby
SET fence = :fence, lease_until = coalesce(:now, clock_timestamp()) + :lease
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('waiting', 'expired')
  AND (lease_until IS NULL OR lease_until <= coalesce(:now, clock_timestamp()))
RETURNING fence;

-- name: unguard
UPDATE lapse_lobby SET lease_until = NULL
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('waiting', 'expired') AND fence = :fence
RETURNING fence;

-- name: guarded
UPDATE lapse_lobby SET lease_until = coalesce(:now, clock_timestamp()) + :lease
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('waiting', 'expired') AND fence = :fence AND lease_until IS NOT NULL
RETURNING fence;

-- name: overdue
SELECT app_name, user_id, session_id FROM lapse_lobby
WHERE lease_until <= (SELECT coalesce(:now, clock_timestamp())) AND status IN ('moving', 'deleting')
ORDER BY lease_until LIMIT :limit;

-- name: time_to_overdue
SELECT min(lease_until) - coalesce(:now, clock_timestamp()) AS lease_left FROM lapse_lobby
WHERE lease_until IS NOT NULL AND status IN ('moving', 'deleting');

-- name: places_of_user
SELECT user_id, session_id, status, service_id, state, update_time, revision FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id
  AND (status NOT IN ('used', 'elsewhere') OR service_id IS NOT NULL);

-- name: places_of_app
SELECT user_id, session_id, status, service_id, state, update_time, revision FROM lapse_lobby
WHERE app_name = :app_name AND (status NOT IN ('used', 'elsewhere') OR service_id IS NOT NULL);

-- name: records_elsewhere
-- There is always a row, because the caller needs `now`.
SELECT l.*, coalesce(:now, clock_timestamp()) AS now
FROM (SELECT 1) AS always
LEFT JOIN lapse_lobby AS l
  ON l.app_name = :app_name AND l.user_id = :user_id AND l.status IN ('moving', 'elsewhere');

-- name: has_elsewhere
SELECT EXISTS (SELECT 1 FROM lapse_lobby WHERE lease_until IS NOT NULL)
  OR EXISTS (SELECT 1 FROM lapse_lobby WHERE status = 'elsewhere') AS found;
