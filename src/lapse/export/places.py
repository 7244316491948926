"""The places of a store that an export reads: one file each, and how its lines are written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any, Final

from lapse.core.clock import iso
from lapse.store.operation import Dialect, Row

_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)

Values = Sequence[Any]
"""The values of a row as plain data, in the order of its place's columns."""


class Kind(Enum):
    """What a column holds, and so how a line shows it."""

    PLAIN = auto()
    """Text or a number."""
    FLAG = auto()
    JSON = auto()
    """A document, by its text."""
    HELD = auto()
    """The events that a lobby row holds, by their text in the dialect's form."""
    PACKED = auto()
    """Compressed JSON: a value; spaces in its text mean nothing."""
    TIME = auto()
    """A moment in ADK's form."""
    MOMENT = auto()
    SPAN = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """A table that an export reads.

    Its statements are named for it: `export_<name>` reads a page, and `import_<name>` writes one
    and returns a row for each that was not there.

    Attributes:
        name: the name of its file, without `.jsonl`.
        columns: what is exported, by the names of the columns.
        of_session: whether a page holds rows of one session, and not of all of an app.
        existing: the statement that finds which of its rows exist already, and the columns that the
            statement takes; None: that of another place finds them.
    """

    name: str
    columns: tuple[tuple[str, Kind], ...]
    of_session: bool = False
    existing: tuple[str, tuple[str, ...]] | None = None

    @property
    def file(self) -> str:
        """Return the name of its file."""
        return f"{self.name.replace('_', '-')}.jsonl"

    @property
    def key(self) -> tuple[int, int]:
        """Return where its columns have the app and the user."""
        names = [name for name, _ in self.columns]
        return names.index("app_name"), names.index("user_id")


_KEY: Final = (("app_name", Kind.PLAIN), ("user_id", Kind.PLAIN))
_STATE: Final = (("update_time", Kind.TIME), ("state", Kind.JSON))
_SESSION: Final = (*_KEY, ("session_id", Kind.PLAIN))

PLACES: Final = (
    Place("user_states", (*_KEY, *_STATE), existing=("existing_states", ("app_name", "user_id"))),
    Place(
        "sessions",
        (*_KEY, ("id", Kind.PLAIN), ("create_time", Kind.TIME), *_STATE),
        existing=("existing_sessions", ("app_name", "user_id", "id")),
    ),
    Place(
        "events",
        (
            *_SESSION,
            ("id", Kind.PLAIN),
            ("invocation_id", Kind.PLAIN),
            ("timestamp", Kind.TIME),
            ("event_data", Kind.JSON),
        ),
        of_session=True,
    ),
    Place(
        "lobby",
        (
            *_SESSION,
            ("status", Kind.PLAIN),
            ("created_at", Kind.MOMENT),
            ("ttl", Kind.SPAN),
            ("expires_at", Kind.MOMENT),
            ("first_message_at", Kind.MOMENT),
            ("expired_at", Kind.MOMENT),
            ("restorable_until", Kind.MOMENT),
            ("resurrections", Kind.PLAIN),
            ("revision", Kind.PLAIN),
            ("used_by", Kind.PLAIN),
            ("agent_spoke", Kind.FLAG),
            ("metadata", Kind.JSON),
            *_STATE,
            ("held_events", Kind.HELD),
            ("active_at", Kind.MOMENT),
            ("restored_at", Kind.MOMENT),
            ("archived_at", Kind.MOMENT),
            ("pinned_at", Kind.MOMENT),
            ("warned_at", Kind.MOMENT),
            ("check_at", Kind.MOMENT),
        ),
        existing=("existing_sessions", ("app_name", "user_id", "session_id")),
    ),
    Place(
        "archive",
        (
            *_SESSION,
            ("update_time", Kind.TIME),
            ("newest_event", Kind.PLAIN),
            ("events", Kind.PLAIN),
            ("content", Kind.PACKED),
        ),
    ),
    Place(
        "runs",
        (
            *_SESSION,
            ("run_id", Kind.PLAIN),
            ("status", Kind.PLAIN),
            ("started_at", Kind.MOMENT),
            ("heartbeat_at", Kind.MOMENT),
            ("ended_at", Kind.MOMENT),
            ("cancel_requested", Kind.FLAG),
            ("invocation_id", Kind.PLAIN),
            ("since", Kind.TIME),
            ("until", Kind.TIME),
            ("error", Kind.JSON),
        ),
        existing=("existing_runs", ("run_id",)),
    ),
)
"""All of them, in the order in which they can be imported: a session before its events.

A place that is added needs its statements in both dialects, and nothing else.
"""

ARTIFACTS_FILE: Final = "artifacts.jsonl"


def line_of(place: Place, row: Row, dialect: Dialect) -> bytes:
    """Return a row as a line of its place's file."""
    document: dict[str, Any] = {}
    for name, kind in place.columns:
        shown, value = _shown_name(name, kind), row[name]
        if value is None:
            document[shown] = None
        elif kind is Kind.JSON:
            document |= _embedded(shown, value, dialect)
        else:
            document[shown] = _shown(value, kind, dialect)
    return json.dumps(document).encode() + b"\n"


def values_of(place: Place, line: bytes) -> Values:
    """Return the values of a line as plain data.

    Raises:
        ValueError: the line does not belong to the place.
    """
    document = json.loads(line)
    if not isinstance(document, dict):
        raise ValueError("is no JSON object")  # noqa: TRY004 - the file is at fault
    values = [_taken(document, _shown_name(name, kind), kind) for name, kind in place.columns]
    if document:
        raise ValueError(f"has the unknown field {next(iter(document))!r:.60}")
    return values


def parameter_of(place: Place, rows: Sequence[Values], dialect: Dialect) -> str:
    """Return rows as `import_<name>` takes them: a JSON array of arrays, in a dialect's terms."""
    kinds = [kind for _, kind in place.columns]
    return json.dumps(
        [
            [_stored(value, kind, dialect) for value, kind in zip(row, kinds, strict=True)]
            for row in rows
        ]
    )


_TEXT: Final = "Text"


def _shown_name(name: str, kind: Kind) -> str:
    first, *more = name.split("_")
    unit = "Seconds" if kind is Kind.SPAN else ""
    return first + "".join(part.capitalize() for part in more) + unit


def _embedded(name: str, text: str, dialect: Dialect) -> dict[str, Any]:
    """Return a document as a value, or as its text if writing that value would change the text."""
    try:
        value = json.loads(text)
        written = json.dumps(value, ensure_ascii=dialect is Dialect.SQLITE, allow_nan=False)
    except ValueError:  # NaN, which Python reads and JSON does not have
        return {name + _TEXT: text}
    return {name: value} if written == text else {name + _TEXT: text}


def _shown(value: Any, kind: Kind, dialect: Dialect) -> Any:
    match kind:
        case Kind.TIME | Kind.MOMENT:
            return iso(value)
        case Kind.SPAN:
            return value.total_seconds()
        case Kind.FLAG:
            return bool(value)
        case Kind.HELD:
            return [_held_shown(held, dialect) for held in json.loads(value)]
        case Kind.PACKED:
            return json.loads(zlib.decompress(value))
        case _:
            return value


def _held_shown(held: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    data = held.get("event_data")
    moment = datetime.fromisoformat(held["timestamp"]).replace(tzinfo=UTC)
    shown = {"id": held["id"], "invocationId": held["invocation_id"], "timestamp": iso(moment)}
    if dialect is Dialect.SQLITE and data is not None:
        return shown | _embedded("eventData", data, dialect)
    return shown | {"eventData": data}


def _taken(document: dict[str, Any], name: str, kind: Kind) -> Any:
    """Take a column's value out of a line's document."""
    if kind is Kind.JSON and name + _TEXT in document:
        text = document.pop(name + _TEXT)
        json.loads(text)
        return text
    value = document.pop(name)
    return value if value is None or kind not in _READERS else _READERS[kind](value)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"has a time without a zone: {text!r:.40}")
    return moment


def _held_taken(held: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": held["id"],
        "invocation_id": held["invocationId"],
        "timestamp": _moment(held["timestamp"]),
        "event_data": _taken(dict(held), "eventData", Kind.JSON),
    }


def _stored(value: Any, kind: Kind, dialect: Dialect) -> Any:
    """Return a value as a dialect's statement takes it inside JSON."""
    if value is None or kind not in _WRITERS:
        return value
    return _WRITERS[kind](value, dialect)


def _held_stored(held: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    data = held["event_data"]
    if dialect is not Dialect.SQLITE and data is not None:
        data = json.loads(data)
    return held | {"timestamp": _naive(held["timestamp"], dialect), "event_data": data}


def _naive(moment: datetime, dialect: Dialect) -> str:
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    return naive.isoformat(" ", "microseconds") if dialect is Dialect.SQLITE else naive.isoformat()


def _interval(span: timedelta) -> str:
    """Return a span as PostgreSQL's driver would store it: whole days, and the rest."""
    days, rest = divmod(span, _DAY)
    return f"{days} days {rest // _MICROSECOND} microseconds"


_READERS: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.JSON: json.dumps,
    Kind.PACKED: json.dumps,
    Kind.TIME: _moment,
    Kind.MOMENT: _moment,
    Kind.SPAN: lambda seconds: timedelta(seconds=seconds),
    Kind.FLAG: bool,
    Kind.HELD: lambda events: [_held_taken(held) for held in events],
}
_WRITERS: Final[dict[Kind, Callable[[Any, Dialect], Any]]] = {
    Kind.TIME: _naive,
    Kind.MOMENT: lambda moment, dialect: (
        (moment - _EPOCH) // _MICROSECOND if dialect is Dialect.SQLITE else moment.isoformat()
    ),
    Kind.SPAN: lambda span, dialect: (
        span // _MICROSECOND if dialect is Dialect.SQLITE else _interval(span)
    ),
    Kind.PACKED: lambda text, _: zlib.compress(text.encode()).hex(),
    Kind.FLAG: lambda flag, dialect: int(flag) if dialect is Dialect.SQLITE else flag,
    Kind.HELD: lambda events, dialect: json.dumps([_held_stored(held, dialect) for held in events]),
}
