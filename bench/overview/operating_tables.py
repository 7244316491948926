"""A million records as a busy installation leaves them, and their numbers of five weeks."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from bench.support.pg_server import Server
from lapse.store.sqlite.schema import prepare

APPS: Final = ("big", "middle", "rare")
"""Of a thousand sessions 899 are of the first one, 100 of the second, 1 of the third."""

USERS: Final = 50_000

_COLUMNS: Final = """
  app_name, user_id, session_id, status, created_at, ttl, expires_at, first_message_at, expired_at,
  restorable_until, metadata, state, held_events, update_time
"""
_APP: Final = "CASE WHEN i % 1000 = 0 THEN 'rare' WHEN i % 1000 <= 100 THEN 'middle' ELSE 'big' END"
_STATUS: Final = (
    "CASE WHEN i % 20 = 0 THEN 'waiting' WHEN i % 20 <= 7 THEN 'expired' ELSE 'used' END"
)
_META: Final = """'{"kind": "canonical-session", "backend_created": true}'"""

_SQLITE: Final = f"""
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :stored),
made AS (
  SELECT i, {_APP} AS app, 'user-' || (abs(random()) % {USERS}) AS user,
    lower(hex(randomblob(4)) || '-' || hex(randomblob(12))) AS id, {_STATUS} AS status,
    :now - i * 80000 AS born FROM n
)
INSERT INTO lapse_lobby ({_COLUMNS})
SELECT app, user, id, status, born, 1800000000,
  CASE status WHEN 'waiting' THEN :now + i * 1800 WHEN 'expired' THEN born + 1800000000 END,
  CASE status WHEN 'used' THEN born END, CASE status WHEN 'expired' THEN born + 1800000000 END,
  CASE status WHEN 'expired' THEN :now + i * 86400 END, {_META},
  CASE WHEN status <> 'used' THEN '{{}}' END, CASE WHEN status <> 'used' THEN '[]' END,
  '2026-01-01 00:00:00.000000'
FROM made
"""
_POSTGRES: Final = f"""
INSERT INTO lapse_lobby ({_COLUMNS})
SELECT app, 'user-' || (random() * {USERS})::int, gen_random_uuid(), status, born, '30 minutes',
  CASE status WHEN 'waiting' THEN now() + i * interval '1.8 ms'
    WHEN 'expired' THEN born + interval '30 minutes' END,
  CASE status WHEN 'used' THEN born END,
  CASE status WHEN 'expired' THEN born + interval '30 minutes' END,
  CASE status WHEN 'expired' THEN now() + i * interval '86.4 ms' END, {_META},
  CASE WHEN status <> 'used' THEN jsonb_build_object() END,
  CASE WHEN status <> 'used' THEN jsonb_build_array() END, '2026-01-01'
FROM (
  SELECT i, {_APP} AS app, {_STATUS} AS status, now() - i * interval '80 ms' AS born
  FROM generate_series(1, :stored) AS i
) AS made
"""
_KINDS: Final = ("created", "used", "extended", "expired", "resurrected", "purged", "deleted")
_LIVE: Final = 3
"""Buckets that no fold has met."""


def fill_sqlite(path: Path, stored: int, now: int) -> None:
    """Make a file with so many records."""
    prepare(str(path))
    with sqlite3.connect(path) as connection:
        for pragma in ("synchronous = OFF", "cache_size = -500000"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(_SQLITE, {"stored": stored, "now": now})
        connection.executemany(
            "INSERT INTO lapse_counted VALUES (?, ?, ?, 1)",
            [(at * 1_000_000, app, kind) for at, app, kind in _history(now)],
        )
        connection.executemany(
            "INSERT INTO lapse_counts VALUES (?, ?, ?, 'waiting', 'waiting', 1)",
            [(app, at * 1_000_000, kind) for at, app, kind in _live(now)],
        )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def fill_postgres(server: Server, database: str, stored: int, now: int) -> None:
    """Put so many records into a prepared database."""
    counted = ", ".join(
        f"(to_timestamp({at}), '{app}', '{kind}', 1)" for at, app, kind in _history(now)
    )
    live = ", ".join(
        f"('{app}', to_timestamp({at}), '{kind}', 'waiting', 'waiting', {shard}, 1)"
        for at, app, kind in _live(now)
        for shard in range(32)
    )
    server.run(
        database,
        "SET session_replication_role = replica",  # no row here has what its foreign key names
        f"SET session_replication_role = replica; {_POSTGRES.replace(':stored', str(stored))}",
        f"INSERT INTO lapse_counted VALUES {counted}",
        f"INSERT INTO lapse_counts VALUES {live}",
        "VACUUM (ANALYZE) lapse_lobby",
        "VACUUM (ANALYZE) lapse_counts",
        "VACUUM (ANALYZE) lapse_counted",
        "CHECKPOINT",
    )


def _history(now: int) -> list[tuple[int, str, str]]:
    """Five weeks by the hour, and two hours by five minutes."""
    now //= 1_000_000
    hour, bucket = now - now % 3600, now - now % 300
    moments = {hour - 3600 * n for n in range(35 * 24)} | {
        bucket - 300 * n for n in range(_LIVE, 27)
    }
    return [(at, app, kind) for at in sorted(moments) for app in APPS for kind in _KINDS]


def _live(now: int) -> list[tuple[int, str, str]]:
    now //= 1_000_000
    bucket = now - now % 300
    return [(bucket - 300 * n, app, kind) for n in range(_LIVE) for app in APPS for kind in _KINDS]
