-- Adoption: moves empty sessions from ADK's tables into the lobby, and back.
--
-- enable_seqscan is off in the transactions that move sessions. A connection plans the checks of
-- foreign keys only once. While the lobby is empty a scan looks cheap; with such a plan, the
-- connection would scan the lobby for each of a million sessions.
--
-- Types of parameters:
-- :since_prepared, :with_agent_only, :with_events, :with_state boolean
-- :older_than interval
-- :run varchar
-- :rules varchar[]

-- name: is_message
-- A part of other statements: whether the event `e` is a message. It has the same rule as
-- `is_message` in `lapse.core.messages`; a test compares the two.
coalesce(e.event_data -> 'partial', 'false') IN ('false', 'null')
AND CASE e.event_data ->> 'author'
  WHEN 'user' THEN
    coalesce(e.event_data #> '{actions,compaction}', 'null') IN ('null', '{}', '[]', '""', 'false')
    AND coalesce(e.event_data #>> '{actions,rewind_before_invocation_id}', '') = ''
    AND (
      coalesce(e.event_data #> '{content,parts}', 'null') NOT IN ('null', '[]')
      OR coalesce(e.event_data #>> '{input_transcription,text}', '') <> ''
    )
  ELSE
    coalesce(e.event_data #> '{content,parts}', 'null') NOT IN ('null', '[]')
    OR coalesce(e.event_data -> 'output_transcription', 'null') <> 'null'
    OR coalesce(e.event_data -> 'output', 'null') <> 'null'
    OR coalesce(e.event_data ->> 'error_code', '') <> ''
END

-- name: is_message_of_user
-- A part of other statements: whether the event `e` is a message where only the user's is, with the
-- same rule as `is_message_of_user` in `lapse.core.messages`.
{is_message} AND (
  e.event_data ->> 'author' IS NOT DISTINCT FROM 'user'
  OR coalesce(e.event_data #>> '{node_info,path}', '') = ''
    AND jsonb_path_exists(e.event_data, '$.content.parts[*].function_response ? (@ != null)')
)

-- name: awaits
-- A part of other statements: whether the event `e` awaits an answer. It has the same rule as
-- `awaits_answer` in `lapse.core.messages`.
coalesce(e.event_data #> '{actions,requested_tool_confirmations}', 'null')
  NOT IN ('null', '{}', '[]')
OR coalesce(e.event_data -> 'long_running_tool_ids', 'null') NOT IN ('null', '{}', '[]')

-- name: lock_orphans
-- The first of the two statements of an adoption. It examines the next sessions, and locks the
-- selected ones. It skips locked sessions: a writer of ADK holds the lock on the row of the session
-- that it appends to. The rows are joined by ctid, so that no plan scans the table.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
examined AS MATERIALIZED (
  SELECT ctid, app_name, user_id, id FROM sessions
  WHERE (app_name, user_id, id) > (:after_app, :after_user, :after_session)
  ORDER BY app_name, user_id, id
  LIMIT :limit
),
locked AS (
  SELECT s.app_name, s.user_id, s.id
  FROM sessions AS s CROSS JOIN clock
  WHERE s.ctid = ANY (ARRAY(SELECT ctid FROM examined))
    AND (:only_app IS NULL OR s.app_name = :only_app)
    AND s.create_time <= now AT TIME ZONE 'UTC' - :older_than
    AND (:since IS NULL OR s.create_time >= :since)
    AND (NOT :since_prepared OR s.create_time >= (
      SELECT min(applied_at) AT TIME ZONE 'UTC' FROM lapse_schema
    ))
    AND NOT starts_with(s.id, 'adk-eval-session-')
    AND NOT starts_with(s.id, '___eval___session___')
    AND NOT EXISTS (
      SELECT 1 FROM lapse_lobby AS l
      WHERE l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
    )
    AND NOT EXISTS (
      SELECT 1 FROM events AS e
      WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
        AND {keeps}
    )
    AND (
      (:with_state OR s.state = '{}') AND (
        :with_events OR NOT :with_agent_only OR NOT EXISTS (
          SELECT 1 FROM events AS e
          WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
        )
      )
      OR :with_agent_only AND EXISTS (
        SELECT 1 FROM events AS e
        WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
          AND {is_message}
      )
    )
  FOR UPDATE OF s SKIP LOCKED
)
SELECT
  set_config('enable_seqscan', 'off', true) AS by_index,
  (SELECT count(*) FROM examined) AS examined, e.app_name, e.user_id, e.id AS session_id,
  (SELECT array_agg(app_name) FROM locked) AS app_names,
  (SELECT array_agg(user_id) FROM locked) AS user_ids,
  (SELECT array_agg(id) FROM locked) AS session_ids
FROM examined AS e
ORDER BY e.app_name DESC, e.user_id DESC, e.id DESC
LIMIT 1;

-- name: keeps
-- A part of the two statements of an adoption: whether the event `e` keeps its session from it.
NOT :with_events AND NOT :with_agent_only OR {awaits} OR {is_message_of_user}
OR NOT :with_agent_only AND {is_message}

-- name: adopt
-- The second statement. Its snapshot is newer than the locks, so it sees every event that was
-- committed before them; the snapshot of lock_orphans is older. A session that has a message by now
-- stays in ADK's tables.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
ours AS (
  SELECT s.*, coalesce(h.held, '[]') AS held, coalesce(h.agent_spoke, false) AS agent_spoke,
    CASE WHEN h.agent_spoke THEN 'user' ELSE k.rule END AS used_by,
    :enforced AND s.create_time AT TIME ZONE 'UTC' + :ttl <= now AS is_due
  FROM unnest(:app_names, :user_ids, :session_ids, :rules) AS k (app_name, user_id, id, rule)
  JOIN sessions AS s USING (app_name, user_id, id)
  CROSS JOIN clock
  LEFT JOIN LATERAL (
    -- An event without text has no event_data here: a JSON null is a text, and comes back as one.
    SELECT count(*) AS events, jsonb_agg(jsonb_build_object(
      'id', e.id, 'invocation_id', e.invocation_id, 'timestamp', e.timestamp
    ) || CASE
      WHEN e.event_data IS NULL THEN '{}' ELSE jsonb_build_object('event_data', e.event_data)
    END ORDER BY e.timestamp, e.id) AS held, bool_or({is_message}) AS agent_spoke
    FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
  ) AS h ON :with_events OR :with_agent_only
  WHERE NOT EXISTS (
      SELECT 1 FROM events AS e
      WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
        AND {keeps}
    )
    AND (:with_events OR coalesce(h.agent_spoke OR h.events = 0, true))
    AND coalesce(h.events, 0) <= :most_events
    AND octet_length(coalesce(h.held, '[]')::text) <= :most_bytes
),
adopted AS (
  INSERT INTO lapse_lobby (
    app_name, user_id, session_id, status, created_at, ttl, expires_at, expired_at,
    restorable_until, state, held_events, update_time, used_by, agent_spoke
  )
  SELECT
    app_name, user_id, id, CASE WHEN is_due THEN 'expired' ELSE 'waiting' END,
    create_time AT TIME ZONE 'UTC', :ttl, create_time AT TIME ZONE 'UTC' + :ttl,
    CASE WHEN is_due THEN now END, CASE WHEN is_due THEN now + :horizon END,
    state, held, update_time, used_by, agent_spoke
  FROM ours, clock
  ON CONFLICT DO NOTHING
  RETURNING *
),
changes AS (
  SELECT app_name, 'adopted' AS kind, '' AS was, status AS became, now FROM adopted, clock
),
counted_changes AS {count_changes},
noted AS (
  INSERT INTO lapse_adopted (app_name, user_id, session_id, run, create_time)
  SELECT app_name, user_id, session_id, :run, created_at AT TIME ZONE 'UTC' FROM adopted
),
counted AS (
  INSERT INTO lapse_adoptions AS a (run, began_at, sessions)
  SELECT :run, now, count(*) FROM adopted, clock GROUP BY now
  ON CONFLICT (run) DO UPDATE SET sessions = a.sessions + excluded.sessions
),
gone AS (
  DELETE FROM sessions AS s USING adopted AS a
  WHERE s.app_name = a.app_name AND s.user_id = a.user_id AND s.id = a.session_id
)
SELECT adopted.*, now FROM adopted, clock;

-- name: put_back
-- Puts back what the lobby row holds: exactly the adopted session, unless it changed in the lobby.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.*, a.create_time, now
  FROM lapse_adopted AS a
  JOIN lapse_lobby AS l USING (app_name, user_id, session_id)
  CROSS JOIN clock
  WHERE a.run = :run
    AND (a.app_name, a.user_id, a.session_id) > (:after_app, :after_user, :after_session)
    AND l.created_at = a.create_time AT TIME ZONE 'UTC'
    AND (
      l.status = 'waiting'
      OR l.status = 'expired' AND (l.restorable_until > now OR NOT :enforced)
    )
  ORDER BY a.app_name, a.user_id, a.session_id
  LIMIT :limit
  FOR UPDATE OF l SKIP LOCKED
),
back AS (
  INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
  SELECT app_name, user_id, session_id, state, create_time, update_time FROM taken
  ON CONFLICT DO NOTHING
  RETURNING app_name, user_id, id
),
stored AS (
  INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
  SELECT e ->> 'id', t.app_name, t.user_id, t.session_id, e ->> 'invocation_id',
    (e ->> 'timestamp')::timestamp, e -> 'event_data'
  FROM back AS b
  JOIN taken AS t
    ON t.app_name = b.app_name AND t.user_id = b.user_id AND t.session_id = b.id,
  jsonb_array_elements(t.held_events) AS e
),
gone AS (
  DELETE FROM lapse_lobby AS l USING back AS b
  WHERE l.app_name = b.app_name AND l.user_id = b.user_id AND l.session_id = b.id
  RETURNING l.app_name, l.status
),
changes AS (
  -- An undo is no change of a session's life: kind is empty, and only the levels change.
  SELECT app_name, '' AS kind, status AS was, '' AS became, now FROM gone, clock
),
counted AS {count_changes}
SELECT set_config('enable_seqscan', 'off', true) AS by_index,
  (SELECT count(*) FROM back) AS put_back, (SELECT count(*) FROM taken) AS taken,
  t.app_name, t.user_id, t.session_id
FROM taken AS t
ORDER BY t.app_name DESC, t.user_id DESC, t.session_id DESC
LIMIT 1;

-- name: forget_adopted
-- Deletes notes on sessions that cannot be put back: they are used, or another session has the key.
DELETE FROM lapse_adopted AS a USING lapse_lobby AS l
WHERE l.app_name = a.app_name AND l.user_id = a.user_id AND l.session_id = a.session_id
  AND (l.status IN ('used', 'archived') OR l.created_at <> a.create_time AT TIME ZONE 'UTC');

-- name: adoptions
SELECT r.run, r.began_at, r.sessions, (
    SELECT count(*) FROM lapse_adopted AS a
    JOIN lapse_lobby AS l USING (app_name, user_id, session_id)
    WHERE a.run = r.run AND l.status NOT IN ('used', 'archived')
      AND l.created_at = a.create_time AT TIME ZONE 'UTC'
  ) AS remaining
FROM lapse_adoptions AS r
ORDER BY r.began_at;

-- name: analyze_lobby
-- The lobby grows before autovacuum updates its statistics. Until then, appends are planned as for
-- an empty lobby.
ANALYZE lapse_lobby, lapse_adopted;
