-- name: report
-- ADK's sessions, grouped: one pass, nothing written, and as many rows as there are groups.
-- age_bucket and delay_bucket say how many of the ascending limits a number of seconds reached.
-- Times are text in the tables of DatabaseSessionService, and seconds in those of `adk web`.
-- LIMIT -1 keeps SQLite from asking for the first message once for each place it stands in.
SELECT app_name, kind, age_bucket(:moment - created) AS age,
  CASE WHEN :moment - created < :day_seconds THEN date(created, 'unixepoch') END AS day,
  CASE WHEN kind = 'used' THEN delay_bucket(first_message - created) END AS delay,
  count(*) AS sessions, sum(bytes) AS bytes, min(created) AS oldest,
  max(first_message) AS latest_message
FROM (
  SELECT app_name, created, first_message,
    size + CASE WHEN first_message IS NULL THEN (
        SELECT coalesce(sum(length(e.event_data)), 0) FROM events AS e
        WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      ) ELSE 0 END AS bytes,
    CASE
      WHEN first_message IS NOT NULL THEN 'used'
      WHEN id GLOB 'adk-eval-session-*' OR id GLOB '___eval___session___*' THEN 'evaluation'
      ELSE coalesce((
        SELECT CASE
            WHEN max(awaits(e.event_data)) THEN 'awaiting'
            WHEN max(is_message(e.event_data)) THEN 'agent_only'
            ELSE 'with_events'
          END
        FROM events AS e
        WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
        HAVING count(*) > 0
      ), CASE WHEN state <> '{}' THEN 'with_state' ELSE 'empty' END)
    END AS kind
  FROM (
    SELECT s.app_name, s.user_id, s.id, s.state,
      CASE typeof(s.create_time)
        WHEN 'text' THEN (julianday(s.create_time) - 2440587.5) * 86400 ELSE s.create_time
      END AS created,
      length(s.state) + length(s.app_name) + length(s.user_id) + length(s.id) AS size,
      (
        SELECT CASE typeof(e.timestamp)
            WHEN 'text' THEN (julianday(e.timestamp) - 2440587.5) * 86400 ELSE e.timestamp
          END
        FROM events AS e
        WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
          AND is_message_of_user(e.event_data)
        ORDER BY e.timestamp, e.id
        LIMIT 1
      ) AS first_message
    FROM sessions AS s
    LIMIT -1
  ) AS s
)
GROUP BY 1, 2, 3, 4, 5;
