"""The bounds of a request: how large its head, its body and the JSON in it may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from lapse.core.arguments import check_fields
from lapse.core.keys import LONGEST_ID, dots_in, unseen_in
from lapse.core.request import Body
from lapse.limits.sizes import size_of, text_in, typed_in

KIB: Final = 1024
MIB: Final = 1024 * KIB

LARGEST_HEAD: Final = 64 * KIB
"""Bytes of a request's line and headers."""

MOST_HEADERS: Final = 100
LARGEST_TARGET: Final = 8 * KIB
"""Bytes of a path and its query."""

LONGEST_SEGMENT: Final = 255
"""Bytes between two slashes of a path: what a file's name may have, as ADK makes some of them."""

SMALL_BODY: Final = 64 * KIB
"""Bytes of a body that has no message and no state in it. A body of at most so many bytes is
never refused because of other bodies."""

DEEPEST_JSON: Final = 100
"""How deeply objects and lists may be nested."""

MOST_VALUES: Final = 50_000
"""How many values JSON may have: reading more would block the event loop for too long."""

MOST_ESCAPES: Final = 1_000_000
"""How many backslashes JSON may have: each costs as much to read as twenty other bytes."""

MOST_BEYOND_ASCII: Final = 4 * MIB
"""How many bytes of JSON may be of characters beyond ASCII, which are stored as escapes. Files are
base64, and so they are ASCII; no model reads a text of this length."""

MOST_TEXT: Final = 4 * MIB
"""How many characters the strings of a message or an artifact may have together, besides its
files. Each step of reading text blocks the event loop; no model reads a text of this length."""

LONGEST_VALUE: Final = 32
"""How many characters a value of JSON may have outside of strings, on the average."""

LONGEST_NUMBER: Final = 8 * KIB
"""How many more there may be in all. To read an integer takes the square of its digits."""

MOST_ENTRIES: Final = 1_000
"""How many parts a message may have, and how many events a new session, with all their parts:
each becomes an object of ADK's, which takes a hundred times as long as to read it."""

MOST_TYPED: Final = 10_000
"""How many values a message, an artifact or one event may have besides those that mean nothing to
ADK, such as state and the arguments of a call."""

MOST_LIVE: Final = 2_000
"""How many such values a WebSocket's message may have: ADK validates it in the event loop."""

SHARES: Final = 4
"""Into how many shares the memory for large bodies is cut; one caller has at most one of them."""


BODY_SETTING: Final = "LAPSE_MAX_BODY_KIB"
STATE_SETTING: Final = "LAPSE_MAX_STATE_KIB"
FIXED: Final = "a fixed limit"
"""The words that an answer has in place of a setting if none raises the bound."""


class Bound(NamedTuple):
    """A bound of so many bytes, and the setting that raises it, or FIXED."""

    size: int
    setting: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds that settings choose.

    Attributes:
        body: bytes of a message's body; files that go with it are inside, in base64.
        state: bytes of a body that makes a session or changes its state, and of the state
            that goes with a message.
        body_time: how long a whole body may take to arrive.
        head_time: how long a request's line and headers may take.
        connections: open at a time; beyond that, one whose reader does not read is closed, or the
            one that has waited longest for a request.
        write_time: how long a connection may take none of the bytes that wait for its reader.
        unread: bytes that wait for the readers of all connections together.
    """

    body: int = 20 * MIB
    state: int = MIB
    body_time: timedelta = timedelta(seconds=30)
    head_time: timedelta = timedelta(seconds=10)
    connections: int = 10_000
    write_time: timedelta = timedelta(seconds=30)
    unread: int = 256 * MIB

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def bodies(self) -> int:
        """Return how many bytes the large bodies of all requests may have together."""
        return 16 * self.body

    @property
    def share(self) -> int:
        """Return how many bytes the large bodies of one caller may have together."""
        return self.bodies // SHARES

    def largest(self, method: str, path: str) -> Bound:
        """Return how many bytes the body of a request may have."""
        if _SMALL.match(path):
            return Bound(min(SMALL_BODY, self.body), FIXED)
        if _STATE.match(path) and method in {"POST", "PATCH"} and self.state < self.body:
            return Bound(self.state, STATE_SETTING)
        return Bound(self.body, BODY_SETTING)


# ADK reads a path without an app as one of its default app, where it has one.
_SESSIONS: Final = r"^(?:/apps/[^/]*)?/users/[^/]*/sessions"
_SMALL: Final = re.compile(rf"{_SESSIONS}/[^/]*/lifecycle(/|$)|^/lapse/")
_STATE: Final = re.compile(rf"{_SESSIONS}(/[^/]*)?/?$")
_ARTIFACTS: Final = re.compile(rf"{_SESSIONS}/[^/]*/artifacts/?$")
_NEW: Final = re.compile(rf"{_SESSIONS}/?$")
_RUN_OF_SESSION: Final = re.compile(rf"{_SESSIONS}/[^/]*/run/?$")
_RUNS: Final = {"/run", "/run_sse"}
LIVE: Final = "/run_live"

_ADK_OR_LAPSE: Final = re.compile(r"^/(?:apps|users|api|dev|agent-identity)/|^/run(?:_sse)?$")
_FORMS: Final = re.compile(r"^/dev/apps/[^/]*/builder/save$")
"""The only route of ADK's that takes `multipart/form-data`. Lapse's own forms are below `/lapse/`,
where nothing takes JSON."""


class Fault(NamedTuple):
    """Why a request is refused, and with which status."""

    status: int
    detail: str


def too_large(reason: str, setting: str = FIXED) -> Fault:
    """Return the fault of what exceeds a bound; it names the setting that raises the bound."""
    return Fault(413, f"{reason} ({setting})")


def fault_of_head(path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]) -> Fault | None:
    """Return what is wrong with a request's path, query and headers; None where nothing is.

    Args:
        path: as it came, percent-encoded.
        query: as it came.
        headers: as they came, their names in small letters.
    """
    if len(path) + len(query) > LARGEST_TARGET:
        return Fault(414, f"path: must be at most {LARGEST_TARGET} bytes with its query")
    if len(headers) > MOST_HEADERS:
        return Fault(431, f"headers: must be at most {MOST_HEADERS}, not {len(headers)}")
    size = types = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"content-type":
            types += 1
    if size > LARGEST_HEAD:
        return Fault(431, f"headers: must be at most {LARGEST_HEAD} bytes together")
    if types > 1:
        # One layer would go by the first, and another by the last.
        return Fault(400, "headers: Content-Type must be given once")
    return _fault_of_path(path)


_PLAIN: Final = re.compile(rb"(?:/[\w~-][\w.~-]{0,200})*/?")
"""A path that needs no second look: most are."""


def _fault_of_path(path: bytes) -> Fault | None:
    if _PLAIN.fullmatch(path):
        return None
    raw = unquote_to_bytes(path)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return Fault(400, "path: must be UTF-8")
    if unseen := unseen_in(text):
        return Fault(400, f"path: must not contain {unseen}")
    if dots := dots_in(text):
        return Fault(400, f"path: must not have a part {dots!r}")
    for segment in _segments(text):
        if len(segment.encode()) > LONGEST_SEGMENT and len(segment) > LONGEST_ID:
            return Fault(414, f"path: each part must be at most {LONGEST_SEGMENT} bytes")
    return None


def _segments(path: str) -> list[str]:
    return re.split(r"[/\\]", path)


def is_document(path: str, content_type: str) -> bool:
    """Return whether a body is measured and parsed as JSON.

    On ADK's routes and Lapse's it is, whatever its type says, for a route may go by something
    else. On an application's own routes it is if its type says so.
    """
    if _ADK_OR_LAPSE.match(path):
        return not _FORMS.match(path)
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


_STATES: Final = {"stateDelta", "state_delta"}
_SPELLINGS: Final = {
    "app_name": "appName",
    "user_id": "userId",
    "session_id": "sessionId",
    "state_delta": "stateDelta",
    "new_message": "newMessage",
    "custom_metadata": "customMetadata",
}


def fault_of_document(path: str, body: Body, bounds: Bounds) -> Fault | None:
    """Return what exceeds the bounds of a route in a document; None if nothing does.

    Args:
        path: the path that the routes match.
        body: a document that has been parsed.
        bounds: the bounds that the settings choose.
    """
    return _fault_of_text(path, body) or _fault_of_fields(path, body, bounds)


def _fault_of_fields(path: str, body: Body, bounds: Bounds) -> Fault | None:
    fields = body.fields
    if path in _RUNS:
        return _fault_of_run(body, bounds)
    if path == LIVE:
        return _fault_of_live(body, bounds)
    if _RUN_OF_SESSION.match(path):
        message = _either(fields, "newMessage", "new_message")
        return _fault_of_entry("newMessage", message, body.values)
    if _NEW.match(path):
        return _fault_of_events(fields.get("events"), body.values)
    if _ARTIFACTS.match(path):
        return _fault_of_name(fields.get("filename")) or _fault_of_entry(
            "artifact", fields.get("artifact"), body.values
        )
    return None


def _fault_of_text(path: str, body: Body) -> Fault | None:
    """Return the fault of a message or an artifact with too much text; state has its own bound."""
    has_text = path in _RUNS or path == LIVE or _RUN_OF_SESSION.match(path)
    if len(body.raw) <= MOST_TEXT or not (has_text or _ARTIFACTS.match(path)):
        return None
    fields = {name: value for name, value in body.fields.items() if name not in _STATES}
    if text_in(fields) <= MOST_TEXT:
        return None
    return too_large(f"body: must have at most {MOST_TEXT} characters of text besides files")


def _either(fields: Mapping[str, Any], *names: str) -> Any:
    return next((fields[name] for name in names if name in fields), None)


def _fault_of_name(name: object) -> Fault | None:
    """Return what is wrong with an artifact's name: ADK makes a file of it."""
    if not isinstance(name, str):
        return None
    if unseen := unseen_in(name):
        return Fault(400, f"filename: must not contain {unseen}")
    if dots := dots_in(name):
        return Fault(400, f"filename: must not have a part {dots!r}")
    if any(len(segment.encode()) > LONGEST_SEGMENT for segment in _segments(name)):
        return Fault(400, f"filename: each part must be at most {LONGEST_SEGMENT} bytes")
    return None


def _fault_of_run(body: Body, bounds: Bounds) -> Fault | None:
    """Return what is wrong with the body of a run.

    Each field may have one name only: where two layers read different ones, the first may
    check one user's session and the second run another's.
    """
    given: dict[str, Any] = {}
    for name, value in body.fields.items():
        field = _SPELLINGS.get(name, name)
        if field in given or (name in body.repeated and field in _SPELLINGS.values()):
            return Fault(400, f"{field}: must be given once")
        given[field] = value
    for field, most, setting in (
        ("stateDelta", bounds.state, STATE_SETTING),
        ("customMetadata", SMALL_BODY, FIXED),
    ):
        if len(body.raw) > most and size_of(given.get(field)) > most:
            return too_large(f"{field}: must be at most {most} bytes", setting)
    return _fault_of_ids(given) or _fault_of_entry(
        "newMessage", given.get("newMessage"), body.values
    )


def _fault_of_live(body: Body, bounds: Bounds) -> Fault | None:
    """Return what is wrong with a message of a WebSocket; of a name that comes twice, with all."""
    changes = [body.fields.get(name) for name in _STATES]
    if len(body.raw) > bounds.state and any(size_of(one) > bounds.state for one in changes):
        return too_large(f"state_delta: must be at most {bounds.state} bytes", STATE_SETTING)
    if body.values > MOST_LIVE and typed_in(body.document) > MOST_LIVE:
        return too_large(
            f"message: must have at most {MOST_LIVE} values outside of fields like args"
        )
    return None


def fault_of_live_query(query: bytes) -> Fault | None:
    """Return what is wrong with the ids in the query of `/run_live`; of one given twice, each."""
    for name, value in parse_qsl(query.decode("latin-1")):
        if fault := _fault_of_ids({_SPELLINGS.get(name, name): value}):
            return fault
    return None


def _fault_of_ids(given: Mapping[str, Any]) -> Fault | None:
    for field in ("appName", "userId", "sessionId"):
        value = given.get(field)
        if not isinstance(value, str):
            continue
        if len(value) > LONGEST_ID:
            return Fault(400, f"{field}: must be at most {LONGEST_ID} characters long")
        if unseen := unseen_in(value):
            return Fault(400, f"{field}: must not contain {unseen}")
        if dots := dots_in(value):
            return Fault(400, f"{field}: must not have a part {dots!r}")
    return None


def _fault_of_entry(field: str, entry: object, values: int) -> Fault | None:
    """Return what is wrong with a message, an artifact or an event; `values`: of the whole body."""
    content = entry.get("content", entry) if isinstance(entry, dict) else entry
    if _parts_of(content) > MOST_ENTRIES:
        return too_large(f"{field}: must have at most {MOST_ENTRIES} parts")
    if values > MOST_TYPED and typed_in(entry) > MOST_TYPED:
        return too_large(
            f"{field}: must have at most {MOST_TYPED} values outside of fields like args"
        )
    return None


def _fault_of_events(events: object, values: int) -> Fault | None:
    if not isinstance(events, list):
        return None
    if len(events) > MOST_ENTRIES:
        return too_large(f"events: must be at most {MOST_ENTRIES}")
    contents: Iterable[object] = (one.get("content") for one in events if isinstance(one, dict))
    if sum(map(_parts_of, contents)) > MOST_ENTRIES:
        return too_large(f"events: must have at most {MOST_ENTRIES} parts together")
    if values <= MOST_TYPED:
        return None
    faults = (_fault_of_entry("events", event, values) for event in events)
    return next(filter(None, faults), None)


def _parts_of(content: object) -> int:
    parts = content.get("parts") if isinstance(content, dict) else None
    return len(parts) if isinstance(parts, list) else 0
