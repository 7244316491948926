-- A user's sessions with their records.
--
-- Types of parameters and columns:
-- :message_time adk_time

-- name: list_with_records
-- What ADK lists, or the sessions that read as one of :statuses. `reads_as` is the status that the
-- record tells at this moment. Only a session that Lapse did not create is searched for its first
-- message, whose time is `message_time`. A record can outlive a used session that others deleted.
WITH found AS (
  SELECT :app_name AS app_name, :user_id AS user_id, k.id AS session_id,
    coalesce(s.state, l.state) AS state, coalesce(s.update_time, l.update_time) AS update_time,
    coalesce(l.revision, 0) AS revision, s.create_time, l.status, l.created_at, l.ttl,
    l.expires_at, l.first_message_at, l.expired_at, l.restorable_until, l.resurrections,
    l.metadata, l.used_by, l.agent_spoke, l.archived_at, l.pinned_at,
    CASE WHEN s.id IS NOT NULL AND l.status IS NOT 'used' THEN (
      SELECT e.timestamp FROM events AS e
      WHERE e.app_name = :app_name AND e.user_id = :user_id AND e.session_id = k.id
        AND is_message(e.event_data)
      ORDER BY e.timestamp, e.id LIMIT 1
    ) END AS message_time
  FROM (
    SELECT id FROM sessions WHERE app_name = :app_name AND user_id = :user_id
    UNION SELECT session_id FROM lapse_lobby WHERE app_name = :app_name AND user_id = :user_id
  ) AS k
  LEFT JOIN sessions AS s
    ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = k.id
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = k.id
  WHERE s.id IS NOT NULL OR CASE l.status
    WHEN 'expired' THEN l.restorable_until > :now OR NOT :enforced
    WHEN 'waiting' THEN l.expires_at > :now OR :horizon > 0 OR NOT :enforced
    ELSE l.status = 'archived'
  END
),
told AS (
  SELECT *, CASE
    WHEN create_time IS NOT NULL
      THEN CASE WHEN status = 'used' OR message_time IS NOT NULL THEN 'used' ELSE 'orphan' END
    WHEN status = 'waiting' AND expires_at <= :now AND :enforced THEN 'expired'
    ELSE status
  END AS reads_as
  FROM found
),
placed AS (
  SELECT *, row_number() OVER (
    PARTITION BY reads_as ORDER BY update_time DESC, session_id DESC
  ) AS place
  FROM told
)
SELECT l.*, {is_held} AS is_held,
  (SELECT state FROM app_states WHERE app_name = :app_name) AS app_state,
  (SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id) AS user_state
FROM placed AS l
WHERE CASE
  WHEN :statuses IS NULL THEN create_time IS NOT NULL OR reads_as = 'waiting'
    OR NOT :enforced AND reads_as <> 'archived'
  ELSE reads_as IN (SELECT value FROM json_each(:statuses))
    AND (reads_as <> 'expired' OR place <= :most)
END
ORDER BY update_time, session_id;
