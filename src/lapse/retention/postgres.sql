-- Retention: the confirmed policy, and what a policy would take.
--
-- Types of parameters:
-- :packed_events, :packed_state, :policy jsonb
-- :contents bytea[]
-- :event_counts bigint[]
-- :kept_for interval[]
-- :archived_at, :check_at, :warned_at timestamptz
-- :newest_events varchar[]
-- :purge_pause interval
-- :ranks boolean
-- :packed_create, :packed_update, :policy_digest text
-- :weeks integer

-- name: retention_confirmed
SELECT digest AS policy_digest, policy, confirmed_at, principal FROM lapse_retention;

-- name: confirm_retention
-- A new policy is looked at from the first session on.
INSERT INTO lapse_retention AS r (id, digest, policy, confirmed_at, principal)
VALUES (1, :policy_digest, :policy::text, coalesce(:now, clock_timestamp()), :by)
ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, policy = excluded.policy,
  confirmed_at = excluded.confirmed_at, principal = excluded.principal, scan_at = NULL,
  scanned_at = NULL, after_app = '', after_user = '', after_session = ''
WHERE r.digest <> excluded.digest
RETURNING id;

-- name: owe_confirmed_webhook
INSERT INTO lapse_webhook_outbox (kind, at, reason, due_at)
SELECT 'retention.confirmed', confirmed_at, digest, confirmed_at FROM lapse_retention
WHERE EXISTS (SELECT 1 FROM lapse_webhooks);

-- name: owe_purged_webhook
-- No-op: purge_archived does it.

-- name: preview_retention
-- For each app, week and age how many sessions fall due. A session without a record is used if it has
-- a message.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
used AS (
  SELECT s.app_name, s.user_id, s.id AS session_id,
    coalesce(l.restored_at, l.first_message_at, s.create_time AT TIME ZONE 'UTC') AS began_at,
    greatest(s.update_time AT TIME ZONE 'UTC', l.first_message_at, l.active_at) AS active_at,
    l.pinned_at IS NOT NULL AS is_pinned,
    coalesce(:policy -> 'apps' -> s.app_name, :policy -> 'default') AS limits
  FROM sessions AS s
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
  WHERE l.status = 'used' OR EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND {is_message}
  )
),
exempted AS (
  SELECT *, is_pinned OR {is_held} AS is_exempt FROM used AS l
),
ranked AS (
  SELECT *, row_number() OVER (
    PARTITION BY app_name, user_id, is_exempt ORDER BY active_at DESC, session_id COLLATE "C"
  ) AS place
  FROM exempted
),
dues AS (
  SELECT app_name, is_exempt, now - began_at AS age, now,
    CASE
      WHEN place > (limits ->> 'per_user')::bigint THEN now
      ELSE least(
        active_at + (limits ->> 'idle')::bigint * interval '1 us',
        began_at + (limits ->> 'age')::bigint * interval '1 us',
        'infinity'
      )
    END AS due
  FROM ranked, clock
)
SELECT app_name,
  CASE WHEN due <= now THEN 0 WHEN due > now + :weeks * interval '7 days' THEN :weeks + 1
    ELSE 1 + floor(extract(epoch FROM due - now) / 604800)::integer END AS week,
  (age > interval '30 days')::integer + (age > interval '90 days')::integer
    + (age > interval '180 days')::integer + (age > interval '365 days')::integer AS age,
  count(*) FILTER (WHERE is_exempt) AS exempt, count(*) AS sessions
FROM dues GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- name: was_archived
SELECT 1 AS found FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND (status = 'archived' OR restored_at IS NOT NULL);

-- name: lock_archived
SELECT l.revision FROM lapse_lobby AS l
WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  AND l.status = 'archived'
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  )
FOR UPDATE OF l;

-- name: read_archived
SELECT update_time, newest_event, content FROM lapse_archive
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: delete_archived
DELETE FROM lapse_archive
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: restore_archived
-- Does nothing if stock ADK has made a session of this id meanwhile. A restore is activity: the sweep
-- looks at the session soon, and then sets its next moment.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
back AS (
  INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
  VALUES (:app_name, :user_id, :session_id, :packed_state, :packed_create::timestamp,
    :packed_update::timestamp)
  ON CONFLICT DO NOTHING
  RETURNING app_name, user_id, id
),
stored AS (
  INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
  SELECT e ->> 0, app_name, user_id, back.id, e ->> 1, (e ->> 2)::timestamp, (e ->> 3)::jsonb
  FROM back, jsonb_array_elements(:packed_events) AS e
),
gone AS (
  DELETE FROM lapse_archive AS a USING back
  WHERE a.app_name = back.app_name AND a.user_id = back.user_id AND a.session_id = back.id
),
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'used', archived_at = NULL, restorable_until = NULL, restored_at = now,
    active_at = now, warned_at = NULL, check_at = now, state = NULL, held_events = NULL
  FROM back, clock
  WHERE l.app_name = back.app_name AND l.user_id = back.user_id AND l.session_id = back.id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'restored' AS kind, 'archived' AS was, 'used' AS became, now FROM done
),
counted AS {count_changes},
audited AS {audited},
told AS (
  INSERT INTO lapse_webhook_outbox
    (kind, app_name, user_id, session_id, at, created_at, amount, due_at)
  SELECT 'session.restored', app_name, user_id, session_id, now, created_at, resurrections, now
  FROM done
  WHERE EXISTS (SELECT 1 FROM lapse_webhooks)
)
SELECT * FROM done;

-- name: keys
-- A part of statements. The condition is always true; see `items` in `combined.sql`.
SELECT * FROM unnest(:app_names, :user_ids, :session_ids) AS k (app_name, user_id, session_id)
WHERE k.session_id || '' = k.session_id

-- name: record_used
WITH done AS (
  INSERT INTO lapse_lobby (
    app_name, user_id, session_id, status, created_at, ttl, first_message_at, update_time
  )
  SELECT s.app_name, s.user_id, s.id, 'used', s.create_time AT TIME ZONE 'UTC', :ttl,
    m.timestamp AT TIME ZONE 'UTC', s.update_time
  FROM sessions AS s
  CROSS JOIN LATERAL (
    SELECT e.timestamp FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND {is_message}
    ORDER BY e.timestamp, e.id LIMIT 1
  ) AS m
  WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
  ON CONFLICT DO NOTHING
  RETURNING app_name, session_id
),
changes AS (
  SELECT app_name, '' AS kind, '' AS was, 'used' AS became, coalesce(:now, clock_timestamp()) AS now
  FROM done
),
counted AS {count_changes}
SELECT session_id FROM done;

-- name: lock_to_archive
-- The first of four statements of one transaction. The others have newer snapshots than the locks: they
-- see every event that was committed before. The record is locked first, as an append does.
SELECT l.app_name, l.user_id, l.session_id
FROM {keys} AS k
JOIN lapse_lobby AS l
  ON l.app_name = k.app_name AND l.user_id = k.user_id AND l.session_id = k.session_id
JOIN sessions AS s
  ON s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
WHERE l.status = 'used'
FOR UPDATE OF l, s SKIP LOCKED;

-- name: standings
-- How each of these used sessions stands, of all that a policy asks.
SELECT l.*, clock.now, s.update_time AS last_event, {is_held} AS is_held,
  EXISTS (
    SELECT 1 FROM lapse_runs AS r
    WHERE r.app_name = l.app_name AND r.user_id = l.user_id AND r.session_id = l.session_id
      AND r.status = 'running' AND r.heartbeat_at > clock.now - :stale
  ) AS is_running,
  found.awaits_since, found.answered_at, found.bytes,
  CASE WHEN :ranks THEN {rank} ELSE 0 END AS rank
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock
CROSS JOIN {keys} AS k
JOIN lapse_lobby AS l
  ON l.app_name = k.app_name AND l.user_id = k.user_id AND l.session_id = k.session_id
JOIN sessions AS s
  ON s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
CROSS JOIN LATERAL (
  SELECT max(e.timestamp) FILTER (WHERE {awaits}) AS awaits_since,
    max(e.timestamp) FILTER (WHERE e.event_data ->> 'author' = 'user') AS answered_at,
    coalesce(sum(pg_column_size(e.event_data)), 0) AS bytes
  FROM events AS e
  WHERE e.app_name = l.app_name AND e.user_id = l.user_id AND e.session_id = l.session_id
) AS found
WHERE l.status = 'used';

-- name: rank
-- A part of `standings`: how many sessions of the user in the app count, and were active later.
SELECT count(*) FROM (
  SELECT l.session_id, {is_held} AS is_held,
    greatest(l.active_at, l.first_message_at, s.update_time AT TIME ZONE 'UTC') AS at
  FROM lapse_lobby AS l
  JOIN sessions AS s
    ON s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
  WHERE l.app_name = k.app_name AND l.user_id = k.user_id AND l.status = 'used'
    AND l.pinned_at IS NULL
) AS o
WHERE NOT o.is_held
  AND (o.at, k.session_id COLLATE "C") > (
    greatest(l.active_at, l.first_message_at, s.update_time AT TIME ZONE 'UTC'),
    o.session_id COLLATE "C"
  )

-- name: contents
-- A timestamp that has no digits, such as infinity, is its own text.
SELECT s.app_name, s.user_id, s.id AS session_id, s.state::text AS state,
  coalesce(to_char(s.create_time, 'YYYY-MM-DD HH24:MI:SS.US'), s.create_time::text) AS raw_create,
  coalesce(to_char(s.update_time, 'YYYY-MM-DD HH24:MI:SS.US'), s.update_time::text) AS raw_update,
  e.events, e.packed, e.newest_event
FROM {keys} AS k
JOIN sessions AS s
  ON s.app_name = k.app_name AND s.user_id = k.user_id AND s.id = k.session_id
CROSS JOIN LATERAL (
  SELECT count(*) AS events,
    coalesce(json_agg(json_build_array(
      id, invocation_id,
      coalesce(to_char(timestamp, 'YYYY-MM-DD HH24:MI:SS.US'), timestamp::text), event_data::text
    ) ORDER BY timestamp, id)::text, '[]') AS packed,
    (array_agg(id ORDER BY timestamp DESC, id DESC))[1] AS newest_event
  FROM events
  WHERE app_name = s.app_name AND user_id = s.user_id AND session_id = s.id
) AS e;

-- name: archive
-- The rows are locked.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
asked AS MATERIALIZED (
  SELECT * FROM unnest(
    :app_names, :user_ids, :session_ids, :newest_events, :event_counts, :contents, :kept_for
  ) AS k (app_name, user_id, session_id, newest_event, events, content, kept_for)
  WHERE k.session_id || '' = k.session_id
),
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'archived', archived_at = now, restorable_until = now + a.kept_for,
    check_at = now + a.kept_for, warned_at = NULL, state = '{}', held_events = '[]',
    update_time = s.update_time
  FROM clock, asked AS a
  JOIN sessions AS s
    ON s.app_name = a.app_name AND s.user_id = a.user_id AND s.id = a.session_id
  WHERE l.app_name = a.app_name AND l.user_id = a.user_id AND l.session_id = a.session_id
    AND l.status = 'used'
  RETURNING l.*, now, a.newest_event, a.events, a.content
),
changes AS (
  SELECT app_name, 'archived' AS kind, 'used' AS was, 'archived' AS became, now FROM done
),
counted AS {count_changes},
kept AS (
  INSERT INTO lapse_archive (
    app_name, user_id, session_id, update_time, newest_event, events, content
  )
  SELECT app_name, user_id, session_id, update_time, newest_event, events, content FROM done
),
gone AS (
  DELETE FROM sessions AS s USING done AS d
  WHERE s.app_name = d.app_name AND s.user_id = d.user_id AND s.id = d.session_id
),
told AS (
  INSERT INTO lapse_webhook_outbox
    (kind, app_name, user_id, session_id, at, created_at, happens, amount, due_at)
  SELECT 'session.archived', app_name, user_id, session_id, now, created_at, restorable_until,
    resurrections, now
  FROM done
  WHERE EXISTS (SELECT 1 FROM lapse_webhooks)
)
SELECT * FROM done;

-- name: check_later
UPDATE lapse_lobby SET check_at = :check_at, warned_at = :warned_at
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'used';

-- name: due_for_look
SELECT app_name, user_id, session_id FROM lapse_lobby
WHERE check_at > '-infinity' AND check_at <= (SELECT coalesce(:now, clock_timestamp())) AND status = 'used'
ORDER BY check_at LIMIT :limit;

-- name: retention_levels
-- Whatever the planner estimates, an order that an index has keeps it from reading all sessions.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS {may_be_taken}
SELECT now,
  (SELECT coalesce(sum(sessions), 0)::bigint FROM {levels} AS levels WHERE status = 'archived')
    AS archived,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE pinned_at IS NOT NULL
    ORDER BY app_name, user_id, session_id LIMIT :most
  ) AS pinned) AS pinned,
  (SELECT count(*) FROM (SELECT 1 FROM lapse_holds LIMIT :most) AS holds) AS holds,
  (SELECT least(count(*), :most) FROM due) AS due,
  (SELECT min(check_at) FROM due) AS check_at,
  {is_braked} AS is_braked
FROM clock;

-- name: may_be_taken
-- A part of `retention_levels`: when a sweep was to do something with a session, the longest overdue.
SELECT check_at FROM (
  SELECT check_at FROM lapse_lobby
  WHERE status = 'used' AND check_at > '-infinity' AND check_at <= (SELECT now FROM clock) ORDER BY check_at LIMIT :most
) AS used
UNION ALL
SELECT check_at FROM (
  SELECT l.check_at FROM lapse_lobby AS l
  WHERE l.status = 'archived' AND l.check_at > '-infinity' AND l.check_at <= (SELECT now FROM clock)
    AND l.restorable_until IS NOT NULL AND l.pinned_at IS NULL AND NOT {is_held}
  ORDER BY l.check_at LIMIT :most
) AS archived;
