-- What ends a session or gives it longer: deletion, its TTL, expiry, resurrection, purge; and the
-- look at the database itself. The types of parameters are in sessions.sql.

-- name: delete_record
-- The first of the two statements of a delete, because an append locks the record first, too. Both
-- delete only the session that the call has seen first, and never another that has its key by now. Its
-- creation goes with it where it moves: into ADK's tables by a message, into the lobby by an adoption.
WITH ended AS (
  DELETE FROM lapse_lobby AS l
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.status IN ('waiting', 'expired', 'used', 'archived')
    AND l.created_at IN (:seen_created_at, :seen_create_time AT TIME ZONE 'UTC')
    AND NOT {key_is_held}
  RETURNING l.*, coalesce(:now, clock_timestamp()) AS now
),
changes AS (
  -- A session that was no longer restorable does not count as deleted. Deletes of used sessions
  -- are counted by a trigger.
  SELECT app_name,
    CASE
      WHEN NOT :enforced OR CASE status
          WHEN 'waiting' THEN expires_at > now OR :horizon > interval '0'
          WHEN 'archived' THEN true
          ELSE restorable_until > now
        END THEN 'deleted' ELSE ''
    END AS kind,
    status AS was, '' AS became, now
  FROM ended WHERE status <> 'used'
),
counted AS {count_changes},
observed AS (
  INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
  SELECT app_name, lapse_segment(metadata), 'withdrawn', user_id, created_at, now
  FROM ended WHERE status IN ('waiting', 'expired')
),
owed AS {owe_artifacts}
SELECT * FROM ended;

-- name: delete_session
-- A statement of its own, so that it sees the session that a first message moved here while
-- delete_record waited for its lock. ON DELETE CASCADE deletes the events.
WITH ended AS (
  DELETE FROM sessions
  WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
    AND create_time IN (:seen_create_time, :seen_created_at AT TIME ZONE 'UTC')
    AND NOT {key_is_held}
  RETURNING app_name, user_id, id AS session_id, coalesce(:now, clock_timestamp()) AS now
),
owed AS {owe_artifacts}
SELECT now FROM ended;

-- name: amend
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND (
      :ttl IS NULL
      OR l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced)
    )
    AND (
      :metadata IS NULL
      OR octet_length((l.metadata || :metadata)::text) <= :largest_metadata
    )
    AND CASE l.status
      WHEN 'waiting' THEN l.expires_at > now OR :horizon > interval '0' OR NOT :enforced
      WHEN 'expired' THEN l.restorable_until > now OR NOT :enforced
      ELSE l.status <> 'deleting'
    END
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET metadata = l.metadata || coalesce(:metadata, '{}'),
    ttl = coalesce(:ttl, l.ttl),
    expires_at = CASE WHEN :ttl IS NULL THEN l.expires_at ELSE now + :ttl END
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'amended' AS kind, {counts_as} AS was, {counts_as} AS became, now FROM done
),
counted AS {count_changes},
audited AS {audited}
SELECT *, {key_is_held} AS is_held,
  {near_deadline_told} AS notified
FROM done;

-- name: extend
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced)
    AND NOT EXISTS (
      SELECT 1 FROM sessions
      WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
    )
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET expires_at = greatest(
    l.expires_at, least(now + l.ttl, l.created_at + :extensible)
  )
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'extended' AS kind, status AS was, status AS became, now FROM done
),
counted AS {count_changes},
audited AS {audited}
SELECT *, {key_is_held} AS is_held FROM done;

-- name: hold_off
-- Moves the deadlines of sessions ahead in which runs are in flight. It returns those that wait.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
waiting AS (
  SELECT l.app_name, l.user_id, l.session_id, l.expires_at
  FROM unnest(:app_names, :user_ids, :session_ids) AS k (app_name, user_id, session_id)
  JOIN lapse_lobby AS l USING (app_name, user_id, session_id)
  CROSS JOIN clock
  WHERE l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced) AND l.used_by = 'user'
),
moved AS (
  UPDATE lapse_lobby AS l SET expires_at = now + :held_for
  FROM waiting AS w, clock, set_config('synchronous_commit', 'off', true) AS relaxed
  WHERE l.app_name = w.app_name AND l.user_id = w.user_id AND l.session_id = w.session_id
    AND w.expires_at < now + :held_for
    AND l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced)
    AND l.expires_at < now + :held_for
  RETURNING l.app_name, l.user_id, l.session_id
)
SELECT app_name, user_id, session_id FROM waiting, clock WHERE expires_at >= now + :held_for
UNION ALL
SELECT app_name, user_id, session_id FROM moved;

-- name: restart_ttl
-- Gives a session a fresh TTL where a run begins or has ended. A deadline as near as a hold sets them
-- comes nearer if the TTL is short; a later one is not a hold's, and stays.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND l.status = 'waiting' AND (l.expires_at > now OR NOT :enforced) AND l.used_by = 'user'
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET expires_at = CASE
    WHEN l.expires_at <= now + :held_for THEN now + l.ttl ELSE greatest(l.expires_at, now + l.ttl)
  END
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'extended' AS kind, status AS was, status AS became, now FROM done
),
counted AS {count_changes}
SELECT *,
  {near_deadline_told} AS notified
FROM done;

-- name: resurrect
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, l.status, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND (
      l.status = 'waiting' AND l.expires_at <= now AND :horizon > interval '0'
        AND :enforced
      OR l.status = 'expired' AND (l.restorable_until > now OR NOT :enforced)
    )
    AND NOT EXISTS (
      SELECT 1 FROM sessions
      WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
    )
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'waiting', expires_at = now + l.ttl, expired_at = NULL, restorable_until = NULL,
    resurrections = l.resurrections + 1
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now, taken.status AS was
),
changes AS (
  SELECT app_name, 'resurrected' AS kind, was, status AS became, now FROM done
),
counted AS {count_changes},
audited AS {audited}
SELECT *, {key_is_held} AS is_held,
  {near_deadline_told} AS notified
FROM done;

-- name: restorable_until
-- Until when the lobby row `l` is restorable, if it expires at `now`.
CASE
  WHEN :horizon > interval '0' THEN greatest(l.created_at + :horizon, now + :shortest_restore)
  ELSE now
END;

-- name: near_deadline_told
-- Tells sweepers of a deadline that they could see too late, because they sleep.
CASE WHEN expires_at - now < interval '20 s' THEN pg_notify(
  'lapse_deadlines', extract(epoch FROM expires_at - now)::text
)::text END;

-- name: expire
-- Expires a waiting session now. The statement waits for the row's lock of a concurrent first
-- message and checks its condition again: the message wins.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
taken AS (
  SELECT l.session_id, now FROM lapse_lobby AS l, clock
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
    AND :enforced AND l.status = 'waiting' AND l.expires_at > now
    AND NOT EXISTS (
      SELECT 1 FROM sessions
      WHERE app_name = :app_name AND user_id = :user_id AND id = :session_id
    )
  FOR UPDATE OF l
),
fresh AS {once},
done AS (
  UPDATE lapse_lobby AS l
  SET status = 'expired', expires_at = now, expired_at = now,
    restorable_until = {restorable_until}
  FROM taken, fresh
  WHERE l.app_name = :app_name AND l.user_id = :user_id AND l.session_id = :session_id
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'expired' AS kind, 'waiting' AS was, status AS became, now FROM done
),
counted AS {count_changes},
audited AS {audited}
SELECT *, {key_is_held} AS is_held FROM done;

-- name: expire_due
-- Takes due rows that are not locked, so that sweeps and messages never wait for each other. The lock
-- re-checks the newest version of a row and keeps it until the UPDATE, which finds it by its address.
-- An address alone would also miss a row that a message has changed, because the changed row has
-- another one. The condition that the UPDATE repeats decides only if rows are found in another way:
-- by their keys and without the lock, a session would expire that a first message has just marked as
-- used.
-- A session that ADK's tables hold although its row waits (stock ADK created one of the same key)
-- is kept: Lapse never expires it. The limit stands in a sub-select, and the rows come as arrays,
-- so that every limit has the same plan, which finds the rows by their addresses. The lower bound of
-- a deadline has PostgreSQL expect few rows: else it plans each sweep of a large table anew.
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT l.ctid, s.id IS NOT NULL AS is_stored
  FROM lapse_lobby AS l
  LEFT JOIN sessions AS s
    ON s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.session_id
  WHERE l.status = 'waiting' AND l.expires_at > '-infinity'
    AND l.expires_at <= (SELECT now FROM clock)
    AND (:horizon > interval '0' OR NOT {is_braked})
  ORDER BY l.expires_at
  LIMIT (SELECT :limit)
  FOR UPDATE OF l SKIP LOCKED
),
done AS (
  UPDATE lapse_lobby AS l
  SET status = CASE WHEN is_stored THEN 'used' ELSE 'expired' END,
    first_message_at = CASE WHEN is_stored THEN now ELSE l.first_message_at END,
    expires_at = CASE WHEN NOT is_stored THEN l.expires_at END,
    expired_at = CASE WHEN NOT is_stored THEN now END,
    restorable_until = CASE WHEN NOT is_stored THEN {restorable_until} END,
    state = CASE WHEN NOT is_stored THEN l.state END,
    held_events = CASE WHEN NOT is_stored THEN l.held_events END
  FROM clock, unnest(
    (SELECT array_agg(ctid) FROM due), (SELECT array_agg(is_stored) FROM due)
  ) AS taken (ctid, is_stored)
  WHERE l.ctid = taken.ctid AND l.status = 'waiting' AND l.expires_at <= now
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, CASE status WHEN 'used' THEN 'kept' ELSE 'expired' END AS kind,
    'waiting' AS was, status AS became, now
  FROM done
),
counted AS {count_changes}
SELECT * FROM done;

-- name: purge_due
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now),
due AS (
  SELECT l.ctid FROM lapse_lobby AS l
  WHERE l.status = 'expired' AND l.restorable_until > '-infinity'
    AND l.restorable_until <= (SELECT now FROM clock)
    AND NOT {is_held} AND NOT {is_braked}
  ORDER BY l.restorable_until
  LIMIT :limit
  FOR UPDATE OF l SKIP LOCKED
),
ended AS (
  DELETE FROM lapse_lobby AS l
  USING due, clock
  WHERE l.ctid = due.ctid AND l.status = 'expired' AND l.restorable_until <= now
  RETURNING l.*, now
),
changes AS (
  SELECT app_name, 'purged' AS kind, 'expired' AS was, '' AS became, now FROM ended
),
counted AS {count_changes},
observed AS (
  INSERT INTO lapse_observations (app_name, segment, outcome, created_at, observed_at, sessions)
  SELECT app_name, lapse_segment(metadata), 'unused',
    date_trunc('day', created_at, 'UTC') AS day, now, count(*)
  FROM ended GROUP BY app_name, lapse_segment(metadata), day, now
),
remembered AS (
  INSERT INTO lapse_purged (key_digest, app_name, segment, created_at, purged_at)
  SELECT sha256(convert_to(concat_ws(E'\x1f', app_name, user_id, session_id), 'UTF8')) AS digest,
    app_name, lapse_segment(metadata), created_at, now
  FROM ended ORDER BY digest
  ON CONFLICT (key_digest) DO UPDATE
  SET created_at = excluded.created_at, purged_at = excluded.purged_at
),
owed AS {owe_artifacts}
SELECT * FROM ended;

-- name: time_to_next
-- Counts only what a sweep may do: a brake holds purges and, if nothing is restorable, expiry, too.
SELECT least(
  (SELECT expires_at FROM lapse_lobby
   WHERE status = 'waiting' AND (:horizon > interval '0' OR NOT {is_braked})
   ORDER BY expires_at LIMIT 1),
  (SELECT restorable_until FROM lapse_lobby AS l
   WHERE status = 'expired' AND NOT {is_held} AND NOT {is_braked} ORDER BY restorable_until LIMIT 1)
) - coalesce(:now, clock_timestamp()) AS ahead;

-- name: ping
-- An update in place needs no room on the disk. The rows that do not fit into work_mem do: they go to
-- a temporary file, unless a limit forbids one.
WITH little AS MATERIALIZED (SELECT set_config('work_mem', '64kB', true) AS work_mem),
spilled AS MATERIALIZED (
  SELECT count(*) AS numbers FROM little, generate_series(
    1, CASE WHEN current_setting('temp_file_limit') = '-1' THEN 8000 ELSE 0 END
  )
)
INSERT INTO lapse_pings (id, at)
SELECT 1, coalesce(:now, clock_timestamp()) FROM spilled
ON CONFLICT (id) DO UPDATE SET at = excluded.at;

-- name: read_ping
SELECT at, (SELECT count(*) FROM (SELECT 1 FROM lapse_lobby LIMIT 1) AS one) AS lobby
FROM lapse_pings;

-- name: status_before
-- No-op: the statements of the transitions read the status before themselves.

-- name: update_app_state
-- No-op: change_app_state is a part of the statements of the transitions.

-- name: update_user_state
-- No-op: change_user_state is a part of the statements of the transitions.

-- name: lock
-- Whoever locks the same name waits until the transaction ends, also if nothing of that name is stored
-- yet.
SELECT pg_advisory_xact_lock(hashtextextended(:lock, 0))::text AS locked;

-- name: lock_by_row
-- In place of `lock`, if the server has no advisory locks. The row changes, and so who has waited at an
-- isolation level above READ COMMITTED fails and is repeated: its snapshot is from before.
INSERT INTO lapse_locks AS l (place) VALUES (:lock_place)
ON CONFLICT (place) DO UPDATE SET turn = l.turn + 1;

-- name: indexes
-- Like the next statement, it runs on a database of any version that nobody has opened. An index
-- whose concurrent creation failed is present but not valid: it costs each write and helps no read.
SELECT c.relname AS name, i.indisvalid AS valid
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE pg_table_is_visible(i.indrelid);

-- name: inspect_sessions
SELECT clock.now,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby WHERE status = 'waiting' AND expires_at <= clock.now LIMIT :most
  ) AS due) AS expire,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby
    WHERE status = 'expired' AND restorable_until <= clock.now LIMIT :most
  ) AS due) AS purge,
  (SELECT count(*) FROM (
    SELECT 1 FROM lapse_lobby
    WHERE status = 'expired' AND first_message_at IS NOT NULL LIMIT :most
  ) AS wrong) AS used_but_expired
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock;
