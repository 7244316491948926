"""Files with a great many waiting sessions, made in seconds by one statement."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

from lapse.store.sqlite.schema import prepare

_FILL = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :stored)
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, expires_at, metadata, state,
  held_events, update_time
)
SELECT 'bench', 'user-' || (i % 50000), lower(hex(randomblob(16))), 'waiting',
  :now - :stored + i, :ttl, :now + :ttl - :stored + i,
  '{"kind": "canonical-session", "backend_created": true}', '{}', '[]',
  '2026-01-01 00:00:00.000000'
FROM n
"""
_OVERDUE = """
UPDATE lapse_lobby SET expires_at = :now - 1000000 + rowid
WHERE rowid IN (SELECT rowid FROM lapse_lobby ORDER BY expires_at LIMIT :due)
"""
_TTL = 12 * 3600 * 1_000_000


def fill(path: Path, stored: int) -> None:
    """Make a file with so many waiting sessions, none of them due for half a day."""
    prepare(str(path))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -500000")
        connection.execute(_FILL, {"stored": stored, "now": _micros(), "ttl": _TTL})
    _settle(connection)


def make_due(path: Path, due: int) -> None:
    """Let the oldest sessions of a file be due."""
    with sqlite3.connect(path) as connection:
        connection.execute(_OVERDUE, {"due": due, "now": _micros()})
    _settle(connection)


def copy(source: Path, target: Path) -> Path:
    """Copy a file, onto the disk: none of it is left to be written while something is timed."""
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return target


def _settle(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _micros() -> int:
    return time.time_ns() // 1000
