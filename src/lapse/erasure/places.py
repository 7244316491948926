"""Where a store keeps something of a user, and what it keeps of nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Place:
    """A table from which an erasure takes the rows of a user.

    Its statements are named for it: `count_<name>` counts the rows, and `erase_<name>` takes at
    most `:limit` of them and returns a row for each. Both may use the app and the user of the key
    and the parameters of `Erasing`.

    Attributes:
        name: what it is called in counts.
        table: the table.
        by_app: whether its statements are about one app, because its index begins with that.
    """

    name: str
    table: str
    by_app: bool = False


PLACES: Final = (
    Place("user_states", "user_states", by_app=True),
    Place("runs", "lapse_runs", by_app=True),
    Place("uploads", "lapse_uploads"),
    Place("webhook_events", "lapse_webhook_outbox"),
    Place("observations", "lapse_observations"),
    Place("idempotency_keys", "lapse_idempotency"),
    Place("rate_limits", "lapse_turns"),
)
"""All places whose rows go without ado.

A place that is added needs its two statements in both dialects, and nothing else.
"""

WITH_SESSIONS: Final[Mapping[str, str]] = {
    "sessions": "deleted one by one, as their owner would",
    "events": "go with their session, by its foreign key",
    "lapse_lobby": "deleted with the session",
    "lapse_archive": "deleted with the session",
    "lapse_adopted": "goes with the lobby's row, by its foreign key",
    "lapse_artifact_outbox": "noted when a session ends, erased once its artifacts are",
    "lapse_memory_outbox": "noted when a session is purged, erased once that is forgotten",
    "lapse_attempts": "a note names a session, for some minutes; erased with the session",
    "lapse_erasures": "a digest of the user, while an erasure goes on; goes with its receipt",
    "lapse_purged": "a digest of a session's key, kept for a week; erased with the session",
    "lapse_audit": "acts on the sessions, and the user's own: what names either is taken out",
}
"""The tables that are erased with the user's sessions, and how."""

OF_OPERATORS: Final[Mapping[str, str]] = {
    "lapse_holds": "an operator's, who releases them; what is on hold is reported, and stays",
}
"""The tables that name a user and that an erasure leaves."""

OF_NOBODY: Final[Mapping[str, frozenset[str]]] = {
    "adk_internal_metadata": frozenset({"key", "value"}),
    "app_states": frozenset({"app_name", "state", "update_time"}),
    "lapse_schema": frozenset({"version", "applied_at"}),
    "lapse_observed_days": frozenset(
        {"app_name", "segment", "day", "outcome", "bucket", "sessions"}
    ),
    "lapse_ttl_rounds": frozenset({"id", "slot", "version"}),
    "lapse_ttl_decisions": frozenset({"number", "app_name", "segment", "decision"}),
    "lapse_adoptions": frozenset({"run", "began_at", "sessions"}),
    "lapse_counts": frozenset({"app_name", "at", "kind", "was", "became", "shard", "sessions"}),
    "lapse_counted": frozenset({"at", "app_name", "kind", "sessions"}),
    "lapse_levels": frozenset({"app_name", "status", "sessions"}),
    "lapse_counted_of_all": frozenset({"at", "kind", "sessions"}),
    "lapse_levels_of_all": frozenset({"status", "sessions"}),
    "lapse_locks": frozenset({"place", "turn"}),
    "lapse_sweeps": frozenset({"id", "swept_at"}),
    "lapse_brakes": frozenset(
        {"id", "reason", "since", "until", "sessions", "jump", "released_at"}
    ),
    "lapse_pings": frozenset({"id", "at", "filler"}),
    "lapse_processes": frozenset(
        {"process", "host", "pid", "program", "version", "sweeps", "started_at", "seen_at"}
    ),
    "lapse_retention": frozenset(
        {
            "id",
            "digest",
            "policy",
            "confirmed_at",
            "principal",
            "scan_at",
            "scanned_at",
            "after_app",
            "after_user",
            "after_session",
        }
    ),
    "lapse_webhooks": frozenset({"id", "seen_at"}),
    "lapse_webhook_dead": frozenset({"event", "kind", "app_name", "at", "attempts", "given_up_at"}),
}
"""The tables that hold nothing of a user, with their columns, so that a new one is noticed."""
