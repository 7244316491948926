-- A user's sessions with their records.
--
-- Types of parameters:
-- :statuses varchar[]

-- name: list_with_records
-- What ADK lists, or the sessions that read as one of :statuses. `reads_as` is the status that the
-- record tells at this moment. Only a session that Lapse did not create is searched for its first
-- message, whose time is `message_time`. A record can outlive a used session that others deleted.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
found AS (
  SELECT :app_name AS app_name, :user_id AS user_id, k.id AS session_id,
    coalesce(s.state, l.state) AS state, coalesce(s.update_time, l.update_time) AS update_time,
    coalesce(l.revision, 0) AS revision, s.create_time, l.status, l.created_at, l.ttl,
    l.expires_at, l.first_message_at, l.expired_at, l.restorable_until, l.resurrections,
    l.metadata, l.used_by, l.agent_spoke, l.archived_at, l.pinned_at, m.message_time, now,
    CASE
      WHEN s.id IS NOT NULL
        THEN CASE WHEN l.status = 'used' OR m.message_time IS NOT NULL THEN 'used' ELSE 'orphan' END
      WHEN l.status = 'waiting' AND l.expires_at <= now AND :enforced THEN 'expired'
      ELSE l.status
    END AS reads_as
  FROM clock CROSS JOIN (
    SELECT id FROM sessions WHERE app_name = :app_name AND user_id = :user_id
    UNION SELECT session_id FROM lapse_lobby WHERE app_name = :app_name AND user_id = :user_id
  ) AS k
  LEFT JOIN sessions AS s
    ON s.app_name = :app_name AND s.user_id = :user_id AND s.id = k.id
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = k.id
  LEFT JOIN LATERAL (
    SELECT e.timestamp AS message_time FROM events AS e
    WHERE s.id IS NOT NULL AND l.status IS DISTINCT FROM 'used'
      AND e.app_name = :app_name AND e.user_id = :user_id AND e.session_id = k.id
      AND {is_message}
    ORDER BY e.timestamp, e.id LIMIT 1
  ) AS m ON true
  WHERE s.id IS NOT NULL OR CASE l.status
    WHEN 'expired' THEN l.restorable_until > now OR NOT :enforced
    WHEN 'waiting' THEN l.expires_at > now OR :horizon > interval '0' OR NOT :enforced
    ELSE l.status = 'archived'
  END
),
placed AS (
  SELECT *, row_number() OVER (
    PARTITION BY reads_as ORDER BY update_time DESC, session_id COLLATE "C" DESC
  ) AS place
  FROM found
)
SELECT l.*, {is_held} AS is_held,
  (SELECT state FROM app_states WHERE app_name = :app_name) AS app_state,
  (SELECT state FROM user_states WHERE app_name = :app_name AND user_id = :user_id) AS user_state
FROM placed AS l
WHERE CASE
  WHEN :statuses IS NULL THEN create_time IS NOT NULL OR reads_as = 'waiting'
    OR NOT :enforced AND reads_as <> 'archived'
  ELSE reads_as = ANY (:statuses) AND (reads_as <> 'expired' OR place <= :most)
END
ORDER BY update_time, session_id COLLATE "C";
