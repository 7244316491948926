-- The processes that serve or sweep.
--
-- Types of parameters:
-- :process, :host, :program, :release varchar
-- :pid bigint
-- :sweeps boolean
-- :silence interval

-- name: report_process
INSERT INTO lapse_processes (process, host, pid, program, version, sweeps, started_at, seen_at)
SELECT :process, :host, :pid, :program, :release, :sweeps, now, now
FROM (SELECT coalesce(:now, clock_timestamp()) AS now) AS clock
ON CONFLICT (process) DO UPDATE SET seen_at = excluded.seen_at;

-- name: forget_processes
DELETE FROM lapse_processes WHERE seen_at < coalesce(:now, clock_timestamp()) - :silence;

-- name: processes
SELECT host, pid, program, version, sweeps, started_at, seen_at FROM lapse_processes
ORDER BY seen_at DESC, process LIMIT :most;
