"""Tables with a great many waiting sessions, and what the sweep's statements read of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from bench.support.pg_server import Server
from lapse.core.lifecycle import DEFAULT_HORIZON, SHORTEST_RESTORE
from lapse.store.postgres.call import STATEMENTS
from lapse.sweep.sweeper import BATCH

_FILL = """
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, expires_at, metadata, state,
  held_events, update_time
)
SELECT 'bench', 'user-' || i % 50000, gen_random_uuid(), 'waiting',
  now() - ({stored} - i) * interval '1 microsecond', {ttl},
  now() + {ttl} - ({stored} - i) * interval '1 microsecond',
  '{{"kind": "canonical-session", "backend_created": true}}', '{{}}', '[]', '2026-01-01'
FROM generate_series(1, {stored}) AS i
"""
_DUE_WITHIN = """
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, expires_at, metadata, state,
  held_events, update_time
)
SELECT 'bench', 'user-' || i, gen_random_uuid(), 'waiting', now(), '1 hour',
  clock_timestamp() + interval '1 second' * ({lead} + {within} * random()),
  '{{"kind": "canonical-session", "backend_created": true}}', '{{}}', '[]', '2026-01-01'
FROM generate_series(1, {stored}) AS i
"""
_OVERDUE = """
UPDATE lapse_lobby SET expires_at = now() - interval '1 second'
WHERE ctid IN (SELECT ctid FROM lapse_lobby ORDER BY expires_at LIMIT {due})
"""
# Foreign keys are not looked at: no row here has one.
_FAST = "SET session_replication_role = replica"
_SETTLE = ("VACUUM (FREEZE, ANALYZE) lapse_lobby", "CHECKPOINT")
_TTL = "interval '12 hours'"


def fill(server: Server, database: str, stored: int) -> None:
    """Put so many waiting sessions into a database, none of them due for half a day."""
    server.run(database, _FAST, _FILL.format(stored=stored, ttl=_TTL), *_SETTLE)


def make_due(server: Server, database: str, due: int) -> None:
    """Let the oldest sessions of a database be due."""
    server.run(database, _OVERDUE.format(due=due), *_SETTLE)


def fill_due_within(
    server: Server, database: str, stored: int, *, lead: float, within: float
) -> None:
    """Put in sessions that are due at random times of a span that begins in `lead` seconds."""
    server.run(database, _DUE_WITHIN.format(stored=stored, lead=lead, within=within), *_SETTLE)


_ARGUMENTS: Final[dict[str, Any]] = {
    "now": None,
    "enforced": True,
    "limit": BATCH,
    "horizon": DEFAULT_HORIZON,
    "shortest_restore": SHORTEST_RESTORE,
}


def plans(server: Server, database: str) -> dict[str, str]:
    """Return, by statement, how a sweep reads the table: the node, its rows, its pages."""
    return {
        name: "; ".join(_scans(_explained(server, database, name)))
        for name in ("expire_due", "time_to_next")
    }


def _explained(server: Server, database: str, name: str) -> dict[str, Any]:
    statement = STATEMENTS[name].sql
    for number, argument in reversed(list(enumerate(STATEMENTS[name].names, 1))):
        statement = statement.replace(f"${number}", _literal(_ARGUMENTS.get(argument)))
    query = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    found: dict[str, Any] = json.loads(server.rows(database, query)[0][0])[0]["Plan"]
    return found


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, timedelta):
        return f"'{value.total_seconds()} s'"
    return str(value)


def _scans(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the scans of lapse_lobby that were run."""
    is_scan = plan.get("Relation Name") == "lapse_lobby" and "Scan" in plan["Node Type"]
    if is_scan and plan["Actual Loops"]:
        pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        using = f" using {plan['Index Name']}" if "Index Name" in plan else ""
        yield f"{plan['Node Type']}{using}: {plan['Actual Rows']:.0f} rows, {pages} pages"
    for part in plan.get("Plans", ()):
        yield from _scans(part)
