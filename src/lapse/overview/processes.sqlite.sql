-- The processes that serve or sweep.
--
-- Types of parameters and columns:
-- :started_at, :seen_at moment
-- :silence duration

-- name: report_process
INSERT INTO lapse_processes (process, host, pid, program, version, sweeps, started_at, seen_at)
VALUES (:process, :host, :pid, :program, :release, :sweeps, :now, :now)
ON CONFLICT (process) DO UPDATE SET seen_at = :now;

-- name: forget_processes
DELETE FROM lapse_processes WHERE seen_at < :now - :silence;

-- name: processes
SELECT host, pid, program, version, sweeps, started_at, seen_at FROM lapse_processes
ORDER BY seen_at DESC, process LIMIT :most;
