"""How much of a request is taken in, and what of it may not be: the rules, without a server."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from lapse.core.keys import LONGEST_ID, dots_in, unseen_in

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
"""Bytes of a body that has no message and no state in it."""

DEEPEST_JSON: Final = 100
"""How deeply objects and lists may be nested."""

MOST_VALUES: Final = 50_000
"""How many values JSON may have: reading more would keep everybody else waiting."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a request is taken in.

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

    @property
    def bodies(self) -> int:
        """Return how many bytes of all bodies together are in memory while they arrive."""
        return 16 * self.body

    def largest(self, method: str, path: str) -> int:
        """Return how many bytes the body of a request may have."""
        if _SMALL.match(path):
            return min(SMALL_BODY, self.body)
        if _STATE.match(path) and method in {"POST", "PATCH"}:
            return min(self.state, self.body)
        return self.body


# ADK reads a path without an app as one of its default app, where it has one.
_SESSIONS: Final = r"^(?:/apps/[^/]*)?/users/[^/]*/sessions"
_SMALL: Final = re.compile(rf"{_SESSIONS}/[^/]*/lifecycle(/|$)|^/lapse/")
_STATE: Final = re.compile(rf"{_SESSIONS}(/[^/]*)?/?$")
_ARTIFACTS: Final = re.compile(rf"{_SESSIONS}/[^/]*/artifacts/?$")
_RUNS: Final = {"/run", "/run_sse"}


class Fault(NamedTuple):
    """Why a request is refused, and with which status."""

    status: int
    detail: str


def fault_of_head(path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]) -> Fault | None:
    """Return what is wrong with a request's path, query and headers; None where nothing is.

    Args:
        path: as it came, percent-encoded.
        query: as it came.
        headers: as they came.
    """
    if len(path) + len(query) > LARGEST_TARGET:
        return Fault(414, f"path: must be at most {LARGEST_TARGET} bytes with its query")
    if len(headers) > MOST_HEADERS:
        return Fault(431, f"headers: must be at most {MOST_HEADERS}, not {len(headers)}")
    if sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD:
        return Fault(431, f"headers: must be at most {LARGEST_HEAD} bytes together")
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


_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKETS: Final = b"[]{}"
_ALL_BUT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def _fault_of_shape(body: bytes) -> Fault | None:
    """Return what is wrong with JSON that would take long to read, without reading it."""
    many = Fault(413, f"body: must have at most {MOST_VALUES} values")
    # Text in a string may have any number of quotes, each behind a backslash.
    if body.count(b'"') - body.count(b'\\"') > 4 * MOST_VALUES:
        return many
    if sum(map(body.count, (b"[", b"{", b","))) <= DEEPEST_JSON:
        return None
    bare = _STRINGS.sub(b"", body)
    if sum(map(bare.count, (b"[", b"{", b","))) > MOST_VALUES:
        return many
    steps = map(_STEPS.__getitem__, bare.translate(None, _ALL_BUT_BRACKETS))
    if max(accumulate(steps), default=0) > DEEPEST_JSON:
        return Fault(400, f"body: must not be nested more than {DEEPEST_JSON} deep")
    return None


_SPELLINGS: Final = {
    "app_name": "appName",
    "user_id": "userId",
    "session_id": "sessionId",
    "state_delta": "stateDelta",
}


def fault_of_json(path: str, body: bytes, bounds: Bounds) -> Fault | None:
    """Return what is wrong with a body of JSON; None where nothing is, or ADK will say it."""
    if fault := _fault_of_shape(body):
        return fault
    if path in _RUNS:
        return _fault_of_run(body, bounds)
    return _fault_of_artifact(body) if _ARTIFACTS.match(path) else None


def _fault_of_artifact(body: bytes) -> Fault | None:
    """Return what is wrong with an artifact's name: ADK makes a file of it."""
    name = dict(_pairs(body)).get("filename")
    if not isinstance(name, str):
        return None
    if unseen := unseen_in(name):
        return Fault(400, f"filename: must not contain {unseen}")
    if dots := dots_in(name):
        return Fault(400, f"filename: must not have a part {dots!r}")
    if any(len(segment.encode()) > LONGEST_SEGMENT for segment in _segments(name)):
        return Fault(400, f"filename: each part must be at most {LONGEST_SEGMENT} bytes")
    return None


def _fault_of_run(body: bytes, bounds: Bounds) -> Fault | None:
    """Return what is wrong with the body of a run.

    Each field may have one name only: where two layers read different ones, the first may
    check one user's session and the second run another's.
    """
    given: dict[str, Any] = {}
    for name, value in _pairs(body):
        field = _SPELLINGS.get(name, name)
        if field in given and field in _SPELLINGS.values():
            return Fault(400, f"{field}: must be given once")
        given[field] = value
    if len(body) > bounds.state and _size(given.get("stateDelta")) > bounds.state:
        return Fault(413, f"stateDelta: must be at most {bounds.state} bytes")
    return _fault_of_ids(given)


def _fault_of_ids(given: dict[str, Any]) -> Fault | None:
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


def _pairs(body: bytes) -> _Pairs:
    """Return an object as it was written; empty for what is none."""
    try:
        pairs = json.loads(body, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return _Pairs()
    return pairs if isinstance(pairs, _Pairs) else _Pairs()


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, names that come twice included."""


def _size(value: Any) -> int:
    """Return about how many characters a value has as JSON."""
    if isinstance(value, _Pairs):
        return sum(len(name) + 4 + _size(inner) for name, inner in value)
    if isinstance(value, list):
        return sum(2 + _size(inner) for inner in value)
    return len(value) + 2 if isinstance(value, str) else 4
