"""The tables of ADK's schema version 0, and their rows in the form of version 1."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, Final

from lapse.core.errors import InvalidValueError, StoreRefusedError
from lapse.core.keys import shortened, visible
from lapse.databases.tables import ADK_TABLES, Row, Table, Type
from lapse.databases.v0.pickled import read_actions

Key = tuple[str, ...]
"""The values of a row's primary key, in the order of the key."""

NEW: Final = "lapse_v1_"
"""The prefix of the new tables while they are filled."""

OLD: Final = "lapse_v0_"
"""The prefix of the old tables once the new ones are in their place."""

UNDONE: Final = "lapse_undone_"
"""The prefix of the new tables after an undo, if they had changed."""

METADATA: Final = "adk_internal_metadata"
BATCHES: Final = "lapse_v0_batches"
MIGRATION: Final = "lapse_v0_migration"

HAS_SESSION: Final = "has_session"
"""The column that is read beside those of an event: whether its session exists."""


@dataclass(frozen=True, slots=True)
class OldTable:
    """A table of version 0.

    Attributes:
        old: its columns, those of the primary key first and in its order.
        new: the table of version 1 with the same name.
        key: the columns of the primary key.
        optional: columns that older versions of ADK did not have.
    """

    old: Table
    new: Table
    key: tuple[str, ...]
    optional: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Return its name."""
        return self.old.name

    def key_of(self, row: Row) -> Key:
        """Return the key of a row of the old table."""
        return row[: len(self.key)]

    @property
    def read(self) -> tuple[tuple[str, Type], ...]:
        """Return the columns that are read of it, with their types."""
        has_session = ((HAS_SESSION, Type.FLAG),) if self.name == "events" else ()
        return (*self.old.columns, *has_session)


def _plain(*names: str) -> tuple[tuple[str, Type], ...]:
    return tuple((name, Type.PLAIN) for name in names)


def _json(*names: str) -> tuple[tuple[str, Type], ...]:
    return tuple((name, Type.JSON) for name in names)


def _flags(*names: str) -> tuple[tuple[str, Type], ...]:
    return tuple((name, Type.FLAG) for name in names)


_APPS, _USERS, _SESSIONS, _EVENTS = ADK_TABLES

_OPTIONAL: Final = (
    *_plain("branch", "long_running_tool_ids_json", "error_code", "error_message"),
    *_flags("partial", "turn_complete", "interrupted"),
    *_json("content", "grounding_metadata", "custom_metadata", "usage_metadata"),
    *_json("citation_metadata", "input_transcription", "output_transcription"),
)

TABLES: Final = (
    OldTable(_APPS, _APPS, ("app_name",)),
    OldTable(_USERS, _USERS, ("app_name", "user_id")),
    OldTable(_SESSIONS, _SESSIONS, ("app_name", "user_id", "id")),
    OldTable(
        Table(
            "events",
            (
                *_plain("id", "app_name", "user_id", "session_id", "invocation_id", "author"),
                ("timestamp", Type.TIME),
                ("actions", Type.BYTES),
                *_OPTIONAL,
            ),
        ),
        _EVENTS,
        ("id", "app_name", "user_id", "session_id"),
        frozenset(name for name, _ in _OPTIONAL),
    ),
)
"""The tables in the order in which the new ones can be filled."""

NAMES: Final = tuple(table.name for table in TABLES)


def is_old(found: Mapping[str, Collection[str]]) -> bool:
    """Return whether the columns of a database's tables are those of version 0."""
    events = found.get("events", ())
    return "actions" in events and "event_data" not in events


def check_old(found: Mapping[str, Collection[str]], place: str) -> None:
    """Check that all that stands in tables of version 0 would stand in those of version 1.

    Raises:
        StoreRefusedError: a table is missing, lacks a column or has one that is not ADK's, or there
            is metadata of another version. It names `place`.
    """
    for table in TABLES:
        columns = set(found.get(table.name, ()))
        known = {name for name, _ in table.old.columns}
        if lacking := sorted(known - table.optional - columns):
            raise StoreRefusedError(
                f"{place}: has a table {table.name!r} that is not ADK's "
                f"(no column {', '.join(lacking)}); give the URL of a database of ADK's"
            )
        if more := sorted(columns - known):
            raise StoreRefusedError(
                f"{place}: the table {table.name!r} has the column {visible(more[0])!r:.40}, which "
                "is not ADK's and would be left behind; move it to a table of its own first"
            )
    if found.get(METADATA):
        raise StoreRefusedError(
            f"{place}: has tables of ADK's version 0 beside {METADATA}, which only version 1 has; "
            "if no other tool migrates it, that table is wrong; remove it"
        )


def moment_of(naive: datetime, zone: tzinfo) -> datetime:
    """Return a naive time of a zone as a naive time in UTC, as version 1 keeps it."""
    return naive.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None)


def converted(table: OldTable, row: Row, zone: tzinfo) -> Row | None:
    """Return a row as version 1 has it; None for an event whose session is deleted.

    Raises:
        StoreRefusedError: version 1 cannot have it. It names the row by the beginnings of its ids,
            and says nothing of what stands in it.
    """
    found = dict(zip((name for name, _ in table.read), row, strict=True))
    try:
        if table.name != "events":
            _check_object("state", found["state"])
            return tuple(found[name] for name, _ in table.new.columns)
        if not found[HAS_SESSION]:
            return None
        return _event(found, zone)
    except InvalidValueError as error:
        raise StoreRefusedError(f"{named(table, row)}: {error.reason}; {_WAY_OUT}") from None


_WAY_OUT: Final = (
    "nothing was changed but the tables lapse_v1_…; mend or delete this row, and run it again"
)


def named(table: OldTable, row: Row) -> str:
    """Name a row by the beginnings of the ids of its session and itself."""
    found = dict(zip((name for name, _ in table.old.columns), row, strict=False))
    match table.name:
        case "events":
            session, event = str(found["session_id"]), str(found["id"])
            return f"event {_shown(event)} of session {_shown(session)}"
        case "sessions":
            return f"session {_shown(str(found['id']))}"
        case _:
            return f"a row of {table.name}"


def _shown(name: str) -> str:
    return visible(shortened(name))


def _event(found: Mapping[str, Any], zone: tzinfo) -> Row:
    from lapse.adk.v0 import event_document

    actions = found["actions"]
    if not isinstance(found["timestamp"], datetime):
        raise InvalidValueError("timestamp", "it has no time")
    when = moment_of(found["timestamp"], zone)
    ids = _parsed("long_running_tool_ids_json", found["long_running_tool_ids_json"])
    fields = {name: found[name] for name, kind in _EVENT_COLUMNS if kind is not Type.JSON}
    fields |= {
        name: _parsed(name, found[name]) for name, kind in _EVENT_COLUMNS if kind is Type.JSON
    }
    fields |= {
        "timestamp": when.replace(tzinfo=UTC).timestamp(),
        "long_running_tool_ids": set(ids) if isinstance(ids, list) else set(),
    }
    document = event_document(fields, None if actions is None else _read(actions))
    return (
        found["app_name"],
        found["user_id"],
        found["session_id"],
        found["id"],
        found["invocation_id"],
        when,
        json.dumps(document),
    )


def _read(actions: Any) -> Mapping[str, Any] | None:
    small = isinstance(actions, bytes) and len(actions) <= _SMALL
    return _read_again(actions) if small else read_actions(actions)


@lru_cache(maxsize=1024)
def _read_again(actions: bytes) -> Mapping[str, Any] | None:
    """Return what `read_actions` returns, which nobody changes: most events do nothing."""
    return read_actions(actions)


_SMALL: Final = 1024
"""Bytes of a pickle that may be like others."""

_EVENT_COLUMNS: Final = TABLES[-1].old.columns


def _parsed(name: str, text: Any) -> Any:
    if text is None or text == "":
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError, TypeError):
        raise InvalidValueError(name, f"its {name} is no JSON") from None


def _check_object(name: str, text: Any) -> None:
    if not isinstance(_parsed(name, text), dict):
        raise InvalidValueError(name, f"its {name} is no JSON object")
