"""Named statements about one session, or about none, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Rules, Status
from lapse.store.postgres import values as rows
from lapse.store.postgres.connections import Connections
from lapse.store.statements import Positional, read_statements

_TYPES: Final = {
    **dict.fromkeys(
        ("app_name", "user_id", "session_id", "event_id", "invocation_id", "seen_event"), "varchar"
    ),
    **dict.fromkeys(("after_app", "after_user", "after_session", "only_app", "run"), "varchar"),
    **dict.fromkeys(("ages", "delays"), "float8[]"),
    "day_seconds": "float8",
    **dict.fromkeys(("app_names", "user_ids", "session_ids"), "varchar[]"),
    **dict.fromkeys(
        ("state", "metadata", "event", "event_data", "session_delta", "app_delta", "user_delta"),
        "jsonb",
    ),
    **dict.fromkeys(("ttl", "horizon", "extensible", "shortest_restore", "older_than"), "interval"),
    **dict.fromkeys(("event_time", "seen_time", "after", "since", "moment"), "timestamp"),
    **dict.fromkeys(
        ("seen_number", "limit", "newest", "most_events", "most_bytes", "largest_metadata"),
        "bigint",
    ),
    **dict.fromkeys(("enforced", "exact", "with_state", "with_events", "artifacts"), "boolean"),
    **dict.fromkeys(("now", "ended_at", "before", "forgotten"), "timestamptz"),
    **dict.fromkeys(("kind", "segment"), "text"),
    **dict.fromkeys(("segments", "decisions"), "jsonb"),
    **dict.fromkeys(("slot", "version", "most_per_user"), "bigint"),
    **dict.fromkeys(("reach", "ttl_before"), "interval"),
    "edges": "bigint[]",
    "first_day": "date",
    **dict.fromkeys(("run_id", "status"), "varchar"),
    **dict.fromkeys(("run_ids", "afters"), "varchar[]"),
    **dict.fromkeys(("stale", "kept"), "interval"),
    "until": "timestamp",
    "most_of_user": "bigint",
    "error": "jsonb",
    "payload": "text",
    **dict.fromkeys(("by", "action"), "text"),
    "detail": "jsonb",
    "before_number": "bigint",
    "site": "varchar",
    **dict.fromkeys(("per_user", "per_site"), "bigint"),
    "buckets": "varchar[]",
    "steps": "interval[]",
    "span": "interval",
    **dict.fromkeys(("only_user", "only_status", "prefix", "prefix_end", "reason"), "varchar"),
    **dict.fromkeys(("after_at", "braked_at", "braked_until"), "timestamptz"),
    **dict.fromkeys(("most", "size", "sessions"), "bigint"),
    **dict.fromkeys(("jump", "fine", "confirmed"), "interval"),
}
"""What each parameter is, wherever it stands: PostgreSQL must not have to guess."""

STATEMENTS: Final = {
    name: Positional.of(statement, _TYPES)
    for name, statement in read_statements("postgres").items()
}

NO_SESSION: Final = SessionKey("", "", "")


@dataclass(frozen=True, slots=True)
class Call:
    """Runs statements, each a transaction of its own.

    Attributes:
        connections: where they run.
        rules: what the store enforces.
        now: the moment; None, outside tests, for the database's clock.
        key: the session that the statements are about.
    """

    connections: Connections
    rules: Rules
    now: datetime | None
    key: SessionKey = NO_SESSION

    def bound(self, name: str, **params: Any) -> tuple[Any, ...]:
        """Return a statement and its arguments: `params`, the key, the moment and the rules."""
        statement = STATEMENTS[name]
        params |= {
            "app_name": self.key.app_name,
            "user_id": self.key.user_id,
            "session_id": self.key.session_id,
            "now": self.now,
            "enforced": self.rules.enforced,
            "horizon": self.rules.horizon,
            "artifacts": self.rules.artifacts,
        }
        return (statement.sql, *(params[name] for name in statement.names))

    async def run(self, name: str, **params: Any) -> list[asyncpg.Record]:
        """Run a statement and return its rows."""
        ask = self.connections.write if STATEMENTS[name].writes else self.connections.read
        return await ask(*self.bound(name, **params))

    async def first(self, name: str, **params: Any) -> asyncpg.Record | None:
        """Run a statement that returns at most one row, and return it."""
        found = await self.run(name, **params)
        return found[0] if found else None

    async def attempt(self, name: str, **params: Any) -> tuple[asyncpg.Record | None, bool]:
        """Run a writing statement as `first`; tell whether a broken-off attempt came before."""
        found, in_doubt = await self.connections.attempt(*self.bound(name, **params))
        return (found[0] if found else None), in_doubt

    async def lifecycle(self) -> Lifecycle | None:
        """Return the session's record; None where it is unknown."""
        row = await self.first("lifecycle")
        if row is None:
            return None
        is_stored, in_lobby = row["create_time"] is not None, row["status"] is not None
        if is_stored and row["status"] != Status.USED:
            events = await self.run("read_event_texts")
            return rows.adopted_record(self.key, row["create_time"], events)
        if not in_lobby:
            return None
        record = rows.lobby_record(row, self.rules)
        return record if self.rules.still_stands(record, row["now"]) else None
