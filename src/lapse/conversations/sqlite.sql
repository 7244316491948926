-- The hand-over of sessions to another service, and back out of it.
--
-- A statement that changes a row on its way names its token (:mark and :fence). A process that was
-- slower than its lease finds no such row any more, and changes nothing. Who takes a row brings a
-- :fence that nobody else has ever had: by it a repeat knows what its first attempt has done.
--
-- A row that is moving without a message is on its way back: the service has refused the message. A
-- row that is deleting without first_message_at stands for what a late hand-over has left: only what
-- carries the mark is removed.
--
-- Types of parameters and columns:
-- :lease, :lease_left duration
-- :lease_until moment

-- name: place
SELECT l.status, l.mark, l.fence, l.service_id, l.lease_until - :now AS lease_left,
  s.id IS NOT NULL AS is_stored
FROM (SELECT 1)
LEFT JOIN lapse_lobby AS l
  ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
LEFT JOIN sessions AS s
  ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id;

-- name: before_claim
-- What the row was before claim, in the same transaction.
SELECT status AS was FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: claim
-- Takes the message into the row, and the row out of reach of every sweep. From here on the message is
-- durable. A second hand-over of the same life has the mark of the first. expired_at is set if the
-- message has resurrected the session.
UPDATE lapse_lobby
SET status = 'moving', mark = coalesce(mark, :mark), fence = :fence, lease_until = :now + :lease,
  message = :message, first_message_at = :now, revision = revision + 1,
  resurrections = resurrections + (status = 'expired' OR :enforced AND expires_at <= :now),
  expired_at = CASE WHEN status = 'expired' OR :enforced AND expires_at <= :now THEN :now END,
  expires_at = NULL, restorable_until = NULL
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND {may_live_on}
  AND (lease_until IS NULL OR lease_until <= :now)
  AND (:counts OR used_by <> 'user')
  AND {held_is_as_seen}
  AND {event_is_not_held}
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
RETURNING *;

-- name: held_by
-- The row, whatever has become of it, if nobody has taken it since who brought this fence.
SELECT * FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id AND fence = :fence;

-- name: take_over
UPDATE lapse_lobby SET fence = :fence, lease_until = :now + :lease
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('moving', 'deleting') AND lease_until <= :now
RETURNING *;

-- name: renew
UPDATE lapse_lobby
SET lease_until = :now + :lease, service_id = coalesce(:service_id, service_id)
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('moving', 'deleting') AND mark = :mark AND fence = :fence
RETURNING fence;

-- name: settle
UPDATE lapse_lobby
SET status = 'elsewhere', service_id = :service_id, lease_until = NULL, message = NULL,
  expired_at = NULL, state = '{}', held_events = '[]', site = NULL
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'moving' AND mark = :mark AND fence = :fence
RETURNING *;

-- name: note_refusal
-- From here on the message will never be stored, whoever finishes the hand-over.
UPDATE lapse_lobby SET message = NULL, first_message_at = NULL
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'moving' AND mark = :mark AND fence = :fence
RETURNING fence;

-- name: take_back
-- The revision is that before the claim: nothing has come of it.
UPDATE lapse_lobby
SET status = 'waiting', expires_at = :now + ttl, expired_at = NULL, lease_until = NULL,
  service_id = NULL, revision = revision - 1
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'moving' AND message IS NULL AND mark = :mark AND fence = :fence
RETURNING *;

-- name: before_delete
-- The row as it last stood, read before begin_delete in the same transaction. A repeat tells of it.
SELECT * FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: begin_delete
-- Where there is no row it makes one: while a session of the service is removed, nobody else may make
-- another of its key.
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, first_message_at, ttl, state, held_events,
  update_time, mark, fence, lease_until
)
SELECT :app_name, :user_id, :session_id, 'deleting', :now, :now, 0, '{}', '[]',
  '1970-01-01 00:00:00.000000', :mark, :fence, :now + :lease
WHERE NOT EXISTS (
  SELECT 1 FROM sessions
  WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
)
ON CONFLICT (app_name, user_id, session_id) DO UPDATE SET
  status = 'deleting', mark = coalesce(lapse_lobby.mark, excluded.mark),
  fence = excluded.fence, lease_until = excluded.lease_until, message = NULL,
  first_message_at = coalesce(lapse_lobby.first_message_at, :now),
  expires_at = NULL, expired_at = NULL, restorable_until = NULL, state = '{}',
  held_events = '[]', site = NULL
WHERE status <> 'used' AND (lapse_lobby.lease_until IS NULL OR lapse_lobby.lease_until <= :now)
RETURNING *;

-- name: observe_deleted
-- A row of the lobby that begin_delete has just taken.
INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
SELECT app_name, segment_of(metadata), 'withdrawn', user_id, created_at, :now FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: reserve
-- Keeps a key to which there is no session from everybody else, while what a late hand-over has made
-- is removed from the service.
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, state, held_events, update_time, mark,
  fence, lease_until
)
SELECT :app_name, :user_id, :session_id, 'deleting', :now, 0, '{}', '[]',
  '1970-01-01 00:00:00.000000', :mark, :fence, :now + :lease
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
-- While something is removed from the service that has the id of a session in the lobby, no message
-- takes that session there.
UPDATE lapse_lobby SET fence = :fence, lease_until = :now + :lease
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('waiting', 'expired') AND (lease_until IS NULL OR lease_until <= :now)
RETURNING fence;

-- name: unguard
UPDATE lapse_lobby SET lease_until = NULL
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('waiting', 'expired') AND fence = :fence
RETURNING fence;

-- name: guarded
-- Whether the lease of a guard goes on; it is renewed like that of a hand-over.
UPDATE lapse_lobby SET lease_until = :now + :lease
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status IN ('waiting', 'expired') AND fence = :fence AND lease_until IS NOT NULL
RETURNING fence;

-- name: overdue
SELECT app_name, user_id, session_id FROM lapse_lobby
WHERE lease_until <= :now AND status IN ('moving', 'deleting') ORDER BY lease_until LIMIT :limit;

-- name: time_to_overdue
SELECT min(lease_until) - :now AS lease_left FROM lapse_lobby
WHERE lease_until IS NOT NULL AND status IN ('moving', 'deleting');

-- name: places_of_user
-- Whatever a list of the service's sessions has to be compared with: sessions that are no longer, or
-- not yet, in the service, and those with another id there.
SELECT user_id, session_id, status, service_id, state, update_time, revision FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id
  AND (status NOT IN ('used', 'elsewhere') OR service_id IS NOT NULL);

-- name: places_of_app
SELECT user_id, session_id, status, service_id, state, update_time, revision FROM lapse_lobby
WHERE app_name = :app_name AND (status NOT IN ('used', 'elsewhere') OR service_id IS NOT NULL);

-- name: records_elsewhere
-- There is always a row, because the caller needs `now`.
SELECT l.*
FROM (SELECT 1)
LEFT JOIN lapse_lobby AS l
  ON l.app_name = :app_name AND l.user_id = :user_id AND l.status IN ('moving', 'elsewhere');

-- name: has_elsewhere
SELECT EXISTS (SELECT 1 FROM lapse_lobby WHERE lease_until IS NOT NULL)
  OR EXISTS (SELECT 1 FROM lapse_lobby WHERE status = 'elsewhere') AS found;
