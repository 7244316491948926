-- The scan for used sessions of which nobody told when to look at them. :checks is a JSON array of
-- [app_name, user_id, session_id, check_at].
--
-- Types of parameters:
-- :pause, :later_pause duration

-- name: scan_turn
-- A scan of all sessions that is complete goes on from the start, at the slower pace.
UPDATE lapse_retention
SET scan_at = :now + CASE WHEN scanned_at IS NULL THEN :pause ELSE :later_pause END
WHERE digest = :policy_digest AND (scan_at IS NULL OR scan_at <= :now)
RETURNING after_app, after_user, after_session, scanned_at IS NOT NULL AS is_whole;

-- name: scan_on
UPDATE lapse_retention
SET after_app = :after_app, after_user = :after_user, after_session = :after_session,
  scanned_at = CASE WHEN :is_last THEN coalesce(scanned_at, :now) ELSE scanned_at END;

-- name: scan_page
SELECT s.app_name, s.user_id, s.id AS session_id, s.update_time AS last_event, l.status, l.check_at,
  l.warned_at, l.first_message_at, l.active_at, l.restored_at
FROM sessions AS s
LEFT JOIN lapse_lobby AS l
  ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
WHERE (s.app_name, s.user_id, s.id) > (:after_app, :after_user, :after_session)
ORDER BY s.app_name, s.user_id, s.id LIMIT :limit;

-- name: record_page
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, first_message_at, update_time
)
SELECT s.app_name, s.user_id, s.id, 'used', micros_of(s.create_time), :ttl, (
    SELECT micros_of(e.timestamp) FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND is_message(e.event_data)
    ORDER BY e.timestamp, e.id LIMIT 1
  ) AS first_message_at, s.update_time
FROM {keys} AS k
CROSS JOIN sessions AS s
  ON s.app_name = k.app_name AND s.user_id = k.user_id AND s.id = k.session_id
WHERE first_message_at IS NOT NULL
ON CONFLICT DO NOTHING
RETURNING app_name, user_id, session_id, first_message_at, update_time AS last_event,
  NULL AS check_at, NULL AS warned_at, NULL AS active_at, NULL AS restored_at;

-- name: check_page
UPDATE lapse_lobby AS l SET check_at = k.value ->> 3 FROM json_each(:checks) AS k
WHERE l.app_name = k.value ->> 0 AND l.user_id = k.value ->> 1 AND l.session_id = k.value ->> 2
  AND l.status = 'used';

-- name: check_user
UPDATE lapse_lobby SET check_at = :now
WHERE app_name = :app_name AND user_id = :user_id AND used_id IS NOT NULL
  AND (check_at IS NULL OR check_at > :now);
