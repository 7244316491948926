"""Used sessions as stock ADK leaves them after a year, in ADK's tables and without records."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from bench.support.pg_server import Server

APP: Final = "shop"
OF_USER: Final = 50
"""So many sessions each user has."""

EVENT: Final = json.dumps(
    {
        "author": "user",
        "invocation_id": "e-1",
        "content": {"role": "user", "parts": [{"text": "Where is my order? " * 8}]},
        "actions": {"state_delta": {}, "artifact_delta": {}},
    }
)

_POSTGRES: Final = (
    """
    INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
    SELECT '{app}', 'user-' || i / {of_user}, 'old-' || i, '{{"step": 1}}',
      now() AT TIME ZONE 'UTC' - interval '365 days', now() AT TIME ZONE 'UTC' - interval '364 days'
    FROM generate_series(1, {sessions}) AS i
    """,
    """
    INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
    SELECT 'e-' || n, '{app}', 'user-' || i / {of_user}, 'old-' || i, 'e-1',
      now() AT TIME ZONE 'UTC' - interval '364 days' - n * interval '1 s', '{event}'
    FROM generate_series(1, {sessions}) AS i, generate_series(1, {events}) AS n
    """,
    """
    INSERT INTO app_states (app_name, state, update_time)
    VALUES ('{app}', '{{}}', now() AT TIME ZONE 'UTC') ON CONFLICT DO NOTHING
    """,
    "VACUUM ANALYZE",
)

_NUMBERS: Final = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {sessions})"
)
_SQLITE: Final = (
    f"""
    INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
    {_NUMBERS} SELECT '{{app}}', 'user-' || i / {{of_user}}, 'old-' || i, '{{{{}}}}',
      strftime('%Y-%m-%d %H:%M:%f000', 'now', '-2 days'),
      strftime('%Y-%m-%d %H:%M:%f000', 'now', '-1 days') FROM n
    """,
    f"""
    INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
    {_NUMBERS} SELECT 'e-1', '{{app}}', 'user-' || i / {{of_user}}, 'old-' || i, 'e-1',
      strftime('%Y-%m-%d %H:%M:%f000', 'now', '-1 days'), '{{event}}' FROM n
    """,
    f"""
    INSERT INTO lapse_lobby (
      app_name, user_id, session_id, status, created_at, ttl, first_message_at, update_time,
      check_at
    )
    {_NUMBERS} SELECT '{{app}}', 'user-' || i / {{of_user}}, 'old-' || i, 'used', 0, 1800000000, 0,
      strftime('%Y-%m-%d %H:%M:%f000', 'now', '-1 days'),
      (strftime('%s', 'now') + 86400 * 28) * 1000000 + i FROM n
    """,
    "ANALYZE",
)


def fill_postgres(server: Server, database: str, *, sessions: int, events: int) -> None:
    """Add sessions without records, with so many events each."""
    event = EVENT.replace("'", "''")
    server.run(
        database,
        *(
            one.format(app=APP, of_user=OF_USER, sessions=sessions, events=events, event=event)
            for one in _POSTGRES
        ),
    )


def fill_sqlite(path: Path, *, sessions: int) -> None:
    """Add sessions with one event of yesterday each, and records that are looked at in a month."""
    event = EVENT.replace("'", "''")
    with closing(sqlite3.connect(path)) as connection, connection:
        for one in _SQLITE:
            connection.execute(one.format(app=APP, of_user=OF_USER, sessions=sessions, event=event))
