"""The tables of ADK's databases: what must be there, and their values between databases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any, Final

from lapse.core.errors import NotWithThisServiceError, StoreRefusedError
from lapse.core.lifecycle import OnItsWay
from lapse.core.numbers import sessions
from lapse.store.schemas import ADK_COLUMNS, Found, check_adk

PAGE: Final = 1000
"""Rows that are read, or written in one transaction, at a time."""

_EXACT: Final = 2**53
"""Beyond it, JSON's numbers are compared as floats: PostgreSQL writes 1e22 with all its zeros."""

Row = tuple[Any, ...]
Pages = AsyncGenerator[list[Row], None]
"""A table's rows, a page at a time."""


class Type(Enum):
    """What a column holds, on its way: text, a naive or an aware datetime, a timedelta, a bool."""

    PLAIN = auto()
    JSON = auto()
    HELD = auto()
    """Events as a lobby holds them: JSON, in the form of the PostgreSQL store."""
    TIME = auto()
    MOMENT = auto()
    SPAN = auto()
    FLAG = auto()
    BYTES = auto()


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns with their types, those of the primary key first."""

    name: str
    columns: tuple[tuple[str, Type], ...]

    @property
    def names(self) -> str:
        """Return the columns' names for a statement."""
        return ", ".join(name for name, _ in self.columns)


_KEY: Final = (("app_name", Type.PLAIN), ("user_id", Type.PLAIN))
_STATE: Final = (("state", Type.JSON), ("update_time", Type.TIME))

ADK_TABLES: Final = (
    Table("app_states", (_KEY[0], *_STATE)),
    Table("user_states", (*_KEY, *_STATE)),
    Table("sessions", (*_KEY, ("id", Type.PLAIN), ("create_time", Type.TIME), *_STATE)),
    Table(
        "events",
        (
            *_KEY,
            ("session_id", Type.PLAIN),
            ("id", Type.PLAIN),
            ("invocation_id", Type.PLAIN),
            ("timestamp", Type.TIME),
            ("event_data", Type.JSON),
        ),
    ),
)

LOBBY: Final = Table(
    "lapse_lobby",
    (
        *_KEY,
        ("session_id", Type.PLAIN),
        ("status", Type.PLAIN),
        ("created_at", Type.MOMENT),
        ("ttl", Type.SPAN),
        ("expires_at", Type.MOMENT),
        ("first_message_at", Type.MOMENT),
        ("expired_at", Type.MOMENT),
        ("restorable_until", Type.MOMENT),
        ("resurrections", Type.PLAIN),
        ("metadata", Type.JSON),
        ("held_events", Type.HELD),
        ("revision", Type.PLAIN),
        ("used_by", Type.PLAIN),
        ("agent_spoke", Type.FLAG),
        ("active_at", Type.MOMENT),
        ("restored_at", Type.MOMENT),
        ("archived_at", Type.MOMENT),
        ("pinned_at", Type.MOMENT),
        ("check_at", Type.MOMENT),
        *_STATE,
    ),
)

RETENTION: Final = (
    Table(
        "lapse_archive",
        (
            *_KEY,
            ("session_id", Type.PLAIN),
            ("update_time", Type.TIME),
            ("newest_event", Type.PLAIN),
            ("events", Type.PLAIN),
            ("content", Type.BYTES),
        ),
    ),
    Table(
        "lapse_holds",
        (
            *_KEY,
            ("session_id", Type.PLAIN),
            ("since", Type.MOMENT),
            ("principal", Type.PLAIN),
            ("reason", Type.PLAIN),
        ),
    ),
)
"""The tables that belong to the lobby's sessions. A policy is confirmed anew in the copy."""


_BEFORE_USED_BY: Final = {"used_by": "'anyone' AS used_by", "agent_spoke": "false AS agent_spoke"}
"""The values for the columns that an older lobby lacks."""

_WITH_USED_BY: Final = 11

_BEFORE_RETENTION: Final = {
    name: f"NULL AS {name}"
    for name in ("active_at", "restored_at", "archived_at", "pinned_at", "check_at")
}
_WITH_RETENTION: Final = 16


def tables_of(version: int) -> Sequence[Table]:
    """Return the tables that a database has of a version of Lapse's schema; 0: it has none."""
    if not version:
        return ADK_TABLES
    return (*ADK_TABLES, LOBBY, *(RETENTION if version >= _WITH_RETENTION else ()))


def lobby_columns(version: int) -> str:
    """Return what a statement selects from the lobby of a schema version, in LOBBY's order."""
    lacks = {} if version >= _WITH_USED_BY else _BEFORE_USED_BY
    if version < _WITH_RETENTION:
        lacks = lacks | _BEFORE_RETENTION
    return ", ".join(lacks.get(name, name) for name, _ in LOBBY.columns)


def check_tables(found: Found, place: str) -> None:
    """Check that a database's tables are ADK's, and that there are some.

    Raises:
        StoreRefusedError: there are none, or they are of another version than 1. It names `place`.
    """
    if not any(found.columns[table] for table in ADK_COLUMNS):
        raise StoreRefusedError(f"{place}: holds no sessions of ADK; name the database that does")
    check_adk(found, place)


def check_lobby(lobby: Mapping[str, int], place: str) -> None:
    """Check that a database itself has the used sessions of its lobby.

    `lobby` says how many sessions have which status.

    Raises:
        NotWithThisServiceError: another session service has some. It names `place`.
    """
    away = sum(lobby.get(status, 0) for status in OnItsWay)
    if away:
        raise NotWithThisServiceError(
            f"another session service has {sessions(away)} of {place}, or is about to take them, "
            "and this command works on ADK's tables in the database; `lapse report --conversations "
            "URI` counts what the service has"
        )


@dataclass(slots=True)
class Checksum:
    """A sum over rows that does not depend on their order, nor on how a database writes them."""

    columns: Sequence[tuple[str, Type]]
    rows: int = 0
    total: int = field(default=0)

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows in."""
        for row in rows:
            told = [_told(value, kind) for value, (_, kind) in zip(row, self.columns, strict=True)]
            digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()
            self.total = (self.total + int.from_bytes(digest)) % 2**256
            self.rows += 1

    @property
    def text(self) -> str:
        """Return it as hexadecimal digits."""
        return f"{self.total:064x}"


def _told(value: Any, kind: Type) -> Any:
    if isinstance(value, str) and kind in {Type.JSON, Type.HELD}:
        return json.loads(value, parse_float=_number, parse_int=_number)
    match value:
        case datetime():
            return value.isoformat(timespec="microseconds")
        case timedelta():
            return value // timedelta(microseconds=1)
        case bytes():
            return value.hex()
        case _:
            return value


def _number(text: str) -> int | float:
    value = float(text)
    if not value.is_integer():
        return value
    return int(value) if abs(value) < _EXACT else value


def from_sqlite(value: Any, kind: Type) -> Any:
    """Read a value of an SQLite file, of either of ADK's formats."""
    if value is None or kind in {Type.PLAIN, Type.JSON, Type.BYTES}:
        return value
    match kind:
        case Type.TIME:
            is_text = isinstance(value, str)
            moment = (
                datetime.fromisoformat(value) if is_text else datetime.fromtimestamp(value, UTC)
            )
            return moment.replace(tzinfo=None)
        case Type.MOMENT:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)
        case Type.SPAN:
            return timedelta(microseconds=value)
        case Type.FLAG:
            return bool(value)
        case Type.HELD:
            return json.dumps(
                [
                    held
                    | {
                        "timestamp": datetime.fromisoformat(held["timestamp"]).isoformat(),
                        "event_data": json.loads(held["event_data"] or "null"),
                    }
                    for held in json.loads(value)
                ]
            )


def to_sqlite(value: Any, kind: Type) -> Any:
    """Return a value as the SQLite store keeps it."""
    if value is None or kind in {Type.PLAIN, Type.JSON, Type.BYTES}:
        return value
    match kind:
        case Type.TIME:
            return value.isoformat(" ", "microseconds")
        case Type.MOMENT:
            return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        case Type.SPAN:
            return value // timedelta(microseconds=1)
        case Type.FLAG:
            return int(value)
        case Type.HELD:
            return json.dumps(
                [
                    held
                    | {
                        "timestamp": to_sqlite(
                            datetime.fromisoformat(held["timestamp"]), Type.TIME
                        ),
                        "event_data": held.get("event_data") and json.dumps(held["event_data"]),
                    }
                    for held in json.loads(value)
                ]
            )


def from_postgres(value: Any, kind: Type) -> Any:
    """Read a value of a PostgreSQL database."""
    if value is None or kind is not Type.HELD:
        return value
    return json.dumps(
        [
            held | {"timestamp": datetime.fromisoformat(held["timestamp"]).isoformat()}
            for held in json.loads(value)
        ]
    )
