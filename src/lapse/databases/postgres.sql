
--
-- Types of parameters:
-- :day_seconds float8
-- :ages, :delays float8[]
-- :moment timestamp

-- name: report
-- ADK's sessions, grouped: one pass, nothing written, and as many rows as there are groups.
-- :ages and :delays are ascending seconds; a bucket's number is how many of them were reached.
WITH looked AS (
  SELECT s.app_name, s.create_time,
    extract(epoch FROM :moment - s.create_time)::float8 AS age,
    extract(epoch FROM m.timestamp - s.create_time)::float8 AS delay,
    m.timestamp AS first_message,
    pg_column_size(s.*) + coalesce(o.bytes, 0) AS bytes,
    CASE
      WHEN m.timestamp IS NOT NULL THEN 'used'
      WHEN starts_with(s.id, 'adk-eval-session-') OR starts_with(s.id, '___eval___session___')
        THEN 'evaluation'
      WHEN o.awaits THEN 'awaiting'
      WHEN o.agent_spoke THEN 'agent_only'
      WHEN o.events > 0 THEN 'with_events'
      WHEN s.state <> '{}' THEN 'with_state'
      ELSE 'empty'
    END AS kind
  FROM sessions AS s
  LEFT JOIN LATERAL (
    SELECT e.timestamp FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND {is_message_of_user}
    ORDER BY e.timestamp, e.id
    LIMIT 1
  ) AS m ON true
  LEFT JOIN LATERAL (
    SELECT count(*) AS events, sum(pg_column_size(e.*)) AS bytes, bool_or({awaits}) AS awaits,
      bool_or({is_message}) AS agent_spoke
    FROM events AS e
    WHERE m.timestamp IS NULL
      AND e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
  ) AS o ON true
)
SELECT app_name, kind,
  width_bucket(age, :ages) AS age,
  CASE WHEN age < :day_seconds THEN create_time::date::text END AS day,
  CASE WHEN kind = 'used' THEN width_bucket(greatest(delay, 0), :delays) END AS delay,
  count(*) AS sessions, sum(bytes)::bigint AS bytes, min(create_time) AS oldest,
  max(first_message) AS latest_message
FROM looked
GROUP BY 1, 2, 3, 4, 5;
