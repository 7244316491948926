-- Retention: the confirmed policy, and what a policy would take.
--
-- micros_of(text) is a time of ADK's in microseconds since the epoch.
--
-- Types of parameters and columns:
-- :active_at, :archived_at, :check_at, :confirmed_at, :held_since, :pinned_at moment
-- :restored_at, :warned_at moment
-- :last_event, :awaits_since, :answered_at adk_time
-- :kept_for, :purge_pause duration

-- name: retention_confirmed
SELECT digest AS policy_digest, policy, confirmed_at, principal FROM lapse_retention;

-- name: confirm_retention
-- A new policy is looked at from the first session on.
INSERT INTO lapse_retention AS r (id, digest, policy, confirmed_at, principal)
VALUES (1, :policy_digest, :policy, :now, :by)
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
INSERT INTO lapse_webhook_outbox
  (kind, app_name, user_id, session_id, at, created_at, amount, due_at)
SELECT 'session.purged', :app_name, :user_id, :session_id, :now, :created_at, :amount, :now
WHERE EXISTS (SELECT 1 FROM lapse_webhooks);

-- name: preview_retention
-- For each app, week and age how many sessions fall due. A session without a record is used if it has
-- a message.
WITH used AS (
  SELECT s.app_name, s.user_id, s.id AS session_id,
    coalesce(l.restored_at, l.first_message_at, micros_of(s.create_time)) AS began_at,
    max(
      micros_of(s.update_time), coalesce(l.first_message_at, 0), coalesce(l.active_at, 0)
    ) AS active_at,
    l.pinned_at IS NOT NULL AS is_pinned,
    coalesce(
      (SELECT value FROM json_each(:policy, '$.apps') WHERE key = s.app_name), :policy ->> 'default'
    ) AS limits
  FROM sessions AS s
  LEFT JOIN lapse_lobby AS l
    ON l.app_name = s.app_name AND l.user_id = s.user_id AND l.session_id = s.id
  WHERE l.status = 'used' OR EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND is_message(e.event_data)
  )
),
exempted AS (
  SELECT *, is_pinned OR {is_held} AS is_exempt FROM used AS l
),
ranked AS (
  SELECT *, row_number() OVER (
    PARTITION BY app_name, user_id, is_exempt ORDER BY active_at DESC, session_id
  ) AS place
  FROM exempted
),
dues AS (
  SELECT app_name, is_exempt, :now - began_at AS age,
    CASE
      WHEN place > (limits ->> 'per_user') THEN :now
      ELSE min(
        coalesce(active_at + (limits ->> 'idle'), 9e18), coalesce(began_at + (limits ->> 'age'), 9e18)
      )
    END AS due
  FROM ranked
)
SELECT app_name,
  CASE WHEN due <= :now THEN 0
    ELSE min(1 + CAST((due - :now) / 604800000000 AS INTEGER), :weeks + 1) END AS week,
  (age > 2592000000000) + (age > 7776000000000) + (age > 15552000000000) + (age > 31536000000000)
    AS age,
  sum(is_exempt) AS exempt, count(*) AS sessions
FROM dues GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- name: was_archived
SELECT 1 AS found FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND (status = 'archived' OR restored_at IS NOT NULL);

-- name: lock_archived
SELECT revision FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'archived'
  AND NOT EXISTS (
    SELECT 1 FROM sessions
    WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
  );

-- name: read_archived
SELECT update_time, newest_event, content FROM lapse_archive
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: delete_archived
DELETE FROM lapse_archive
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;

-- name: restore_archived
-- A restore is activity: the sweep looks at the session soon, and then sets its next moment.
INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
VALUES (:app_name, :user_id, :session_id, :packed_state, :packed_create, :packed_update);
DELETE FROM lapse_archive
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id;
UPDATE lapse_lobby
SET status = 'used', archived_at = NULL, restorable_until = NULL, restored_at = :now,
  active_at = :now, warned_at = NULL, check_at = :now, state = NULL, held_events = NULL
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
RETURNING *;
INSERT INTO lapse_webhook_outbox
  (kind, app_name, user_id, session_id, at, created_at, amount, due_at)
SELECT 'session.restored', app_name, user_id, session_id, :now, created_at, resurrections, :now
FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND EXISTS (SELECT 1 FROM lapse_webhooks);

-- name: restore_event
INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
VALUES (
  :packed_id, :app_name, :user_id, :session_id, :packed_invocation, :packed_time, :packed_data
);

-- name: record_used
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, first_message_at, update_time
)
SELECT s.app_name, s.user_id, s.id, 'used', micros_of(s.create_time), :ttl, (
    SELECT micros_of(e.timestamp) FROM events AS e
    WHERE e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id
      AND is_message(e.event_data)
    ORDER BY e.timestamp, e.id LIMIT 1
  ) AS first_message_at, s.update_time
FROM sessions AS s
WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
  AND first_message_at IS NOT NULL
ON CONFLICT DO NOTHING
RETURNING session_id;

-- name: lock_to_archive
-- No-op: nothing else is written during the transaction.

-- name: keys
-- A part of statements: :keys is a JSON array of [app_name, user_id, session_id].
SELECT value ->> 0 AS app_name, value ->> 1 AS user_id, value ->> 2 AS session_id
FROM json_each(:keys)

-- name: standings
-- How each of these used sessions stands, of all that a policy asks.
SELECT l.*, s.update_time AS last_event, {is_held} AS is_held,
  EXISTS (
    SELECT 1 FROM lapse_runs AS r
    WHERE r.app_name = l.app_name AND r.user_id = l.user_id AND r.session_id = l.session_id
      AND r.status = 'running' AND r.heartbeat_at > :now - :stale
  ) AS is_running,
  (
    SELECT max(e.timestamp) FROM events AS e
    WHERE e.app_name = l.app_name AND e.user_id = l.user_id AND e.session_id = l.session_id
      AND awaits(e.event_data)
  ) AS awaits_since,
  (
    SELECT max(e.timestamp) FROM events AS e
    WHERE e.app_name = l.app_name AND e.user_id = l.user_id AND e.session_id = l.session_id
      AND e.event_data ->> 'author' = 'user'
  ) AS answered_at,
  (
    SELECT coalesce(sum(length(e.event_data)), 0) FROM events AS e
    WHERE e.app_name = l.app_name AND e.user_id = l.user_id AND e.session_id = l.session_id
  ) AS bytes,
  CASE WHEN :ranks THEN {rank} ELSE 0 END AS rank
FROM {keys} AS k
CROSS JOIN lapse_lobby AS l
  ON l.app_name = k.app_name AND l.user_id = k.user_id AND l.session_id = k.session_id
JOIN sessions AS s
  ON s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
WHERE l.status = 'used';

-- name: rank
-- A part of `standings`: how many sessions of the user in the app count, and were active later.
SELECT count(*) FROM (
  SELECT l.session_id, {is_held} AS is_held,
    max(coalesce(l.active_at, 0), coalesce(l.first_message_at, 0), micros_of(s.update_time)) AS at
  FROM lapse_lobby AS l
  JOIN sessions AS s
    ON s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
  WHERE l.app_name = k.app_name AND l.user_id = k.user_id AND l.status = 'used'
    AND l.pinned_at IS NULL
) AS o
WHERE NOT o.is_held
  AND (o.at, k.session_id) > (
    max(coalesce(l.active_at, 0), coalesce(l.first_message_at, 0), micros_of(s.update_time)),
    o.session_id
  )

-- name: contents
SELECT s.app_name, s.user_id, s.id AS session_id, s.state, s.create_time AS raw_create,
  s.update_time AS raw_update
FROM {keys} AS k
CROSS JOIN sessions AS s
  ON s.app_name = k.app_name AND s.user_id = k.user_id AND s.id = k.session_id;

-- name: event_columns
SELECT id, invocation_id, timestamp AS raw_time, event_data FROM events
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
ORDER BY timestamp, id;

-- name: archive
-- The lobby row says first that the session is archived, so that it does not go with the session.
INSERT INTO lapse_archive (
  app_name, user_id, session_id, update_time, newest_event, events, content
)
SELECT app_name, user_id, id, update_time, :newest_event, :events, :content FROM sessions
WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id;
UPDATE lapse_lobby
SET status = 'archived', archived_at = :now, restorable_until = :now + :kept_for,
  check_at = :now + :kept_for, warned_at = NULL, state = '{}', held_events = '[]',
  update_time = (
    SELECT s.update_time FROM sessions AS s
    WHERE s.app_name = :app_name AND s.user_id = :user_id AND s.id = :session_id
  )
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'used'
RETURNING *;
DELETE FROM sessions WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id;
INSERT INTO lapse_webhook_outbox
  (kind, app_name, user_id, session_id, at, created_at, happens, amount, due_at)
SELECT 'session.archived', app_name, user_id, session_id, :now, created_at, restorable_until,
  resurrections, :now
FROM lapse_lobby
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND EXISTS (SELECT 1 FROM lapse_webhooks);

-- name: check_later
UPDATE lapse_lobby SET check_at = :check_at, warned_at = :warned_at
WHERE app_name = :app_name AND user_id = :user_id AND session_id = :session_id
  AND status = 'used';

-- name: due_for_look
SELECT app_name, user_id, session_id FROM lapse_lobby
WHERE check_at <= :now AND status = 'used' ORDER BY check_at LIMIT :limit;

-- name: retention_levels
-- Whatever the planner estimates, an order that an index has keeps it from reading all sessions.
WITH due AS {may_be_taken}
SELECT
  (SELECT coalesce(sum(sessions), 0) FROM {levels} WHERE status = 'archived') AS archived,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE pinned_at IS NOT NULL
    ORDER BY app_name, user_id, session_id LIMIT :most
  )) AS pinned,
  (SELECT count(*) FROM (SELECT 1 FROM lapse_holds LIMIT :most)) AS holds,
  (SELECT min(count(*), :most) FROM due) AS due,
  (SELECT min(check_at) FROM due) AS check_at,
  {is_braked} AS is_braked;

-- name: may_be_taken
-- A part of `retention_levels`: when a sweep was to do something with a session, the longest overdue.
SELECT check_at FROM (
  SELECT check_at FROM lapse_lobby
  WHERE status = 'used' AND check_at <= :now ORDER BY check_at LIMIT :most
) AS used
UNION ALL
SELECT check_at FROM (
  SELECT l.check_at FROM lapse_lobby AS l
  WHERE l.status = 'archived' AND l.check_at <= :now AND l.restorable_until IS NOT NULL
    AND l.pinned_at IS NULL AND NOT {is_held}
  ORDER BY l.check_at LIMIT :most
) AS archived;
