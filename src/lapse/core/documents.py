"""JSON documents as the stores keep them, and state split by its scope.

The text is what ADK's own DatabaseSessionService writes: `json.dumps` with its defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from lapse.core.errors import InvalidValueError

APP_PREFIX: Final = "app:"
USER_PREFIX: Final = "user:"
TEMP_PREFIX: Final = "temp:"

LARGEST_METADATA: Final = 16 * 1024
"""The maximum of bytes of a session's metadata, as JSON."""

LONGEST_SEGMENT: Final = 32
"""The maximum of characters of the segment that a session's metadata may name."""

NO_SEGMENT: Final = ""


_MUCH: Final = 4_000
"""A thousandth of a second's work, counted in values; a value may have as many characters more
as _PER_VALUE."""

_PER_VALUE: Final = 64

_to_json: Final = json.JSONEncoder(allow_nan=False).encode


def is_large(*documents: object) -> bool:
    """Return whether a document takes so long to write that a thread should do it.

    It looks at no more of the document than it needs.
    """
    waiting: list[Any] = list(documents)
    room = _MUCH
    while waiting and room > 0:
        value = waiting.pop()
        if isinstance(value, dict):
            room -= len(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            room -= len(value)
            waiting.extend(value)
        elif isinstance(value, (str, bytes)):
            room -= len(value) // _PER_VALUE
    return room <= 0


def encode(value: object, *, what: str) -> str:
    """Return `value` as JSON text that every store can hold.

    Raises:
        InvalidValueError: the value cannot be written as JSON, or holds NUL, NaN, an infinity or
            a lone surrogate, which PostgreSQL's JSONB cannot store. `what` names the value.
    """
    try:
        text = _to_json(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidValueError(what, f"must be expressible as JSON: {error}") from error
    # Where a backslash stands before it, it is text that looks like an escape.
    if "\\u0000" in text and "\\u0000" in text.replace(r"\\", ""):
        raise InvalidValueError(what, "must not contain a NUL character (\\u0000)")
    if "\\ud" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            reason = "must not contain a lone surrogate (an incomplete UTF-16 character)"
            raise InvalidValueError(what, reason) from error
    return text


@lru_cache(maxsize=1024)
def read_metadata(text: str) -> Mapping[str, Any]:
    """Read a session's metadata; equal texts, which most sessions have, share one result."""
    return MappingProxyType(json.loads(text))


def check_metadata(metadata: object) -> Mapping[str, Any]:
    """Return `metadata` if it is an object of at most LARGEST_METADATA bytes.

    Raises:
        InvalidValueError: it is not, or it cannot be stored.
    """
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InvalidValueError("metadata", f"must be a JSON object, not {metadata!r:.40}")
    if metadata:
        check_metadata_size(encode(dict(metadata), what="metadata"))
    return metadata


def check_metadata_size(text: str) -> None:
    """Raise InvalidValueError if metadata is over LARGEST_METADATA bytes as JSON."""
    if len(text) > LARGEST_METADATA:
        reason = f"must be at most {LARGEST_METADATA} bytes of JSON, not {len(text)}"
        raise InvalidValueError("metadata", reason)


def segment_of(metadata: Mapping[str, Any]) -> str:
    """Return the segment that a session's metadata names.

    It is NO_SEGMENT if `metadata.segment` is not a text of 1 to LONGEST_SEGMENT characters.
    """
    label = metadata.get("segment")
    if isinstance(label, str) and len(label) <= LONGEST_SEGMENT:
        return label
    return NO_SEGMENT


@dataclass(frozen=True, slots=True)
class StateDelta:
    """A change of state by scope: keys without their prefixes, values that JSON can hold."""

    app: Mapping[str, Any] = field(default_factory=dict)
    user: Mapping[str, Any] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)


def split_state(state: Mapping[str, Any]) -> StateDelta:
    """Split state by the prefix of its keys; `temp:` keys are dropped."""
    app, user, session = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for key, value in state.items():
        if key.startswith(APP_PREFIX):
            app[key.removeprefix(APP_PREFIX)] = value
        elif key.startswith(USER_PREFIX):
            user[key.removeprefix(USER_PREFIX)] = value
        elif not key.startswith(TEMP_PREFIX):
            session[key] = value
    return StateDelta(app, user, session)


def merge_state(
    session: Mapping[str, Any], app: Mapping[str, Any], user: Mapping[str, Any]
) -> dict[str, Any]:
    """Join the three scopes into what an agent sees: app and user keys get their prefixes."""
    return (
        dict(session)
        | {APP_PREFIX + key: value for key, value in app.items()}
        | {USER_PREFIX + key: value for key, value in user.items()}
    )


def stays_within(text: str | None, change: str, largest: int) -> bool:
    """Return whether the object `text`, changed as by `update_document`, may be stored.

    It may have `largest` characters, which are bytes here, or no more than it has now.
    """
    size = len(text or "")
    # Twice, as what others have written may have no spaces, which Lapse's text has.
    if 2 * (size + len(change)) <= largest:
        return True
    return len(update_document(text, change)) <= max(largest, size)


def read_object(text: str | None) -> dict[str, Any]:
    """Read a stored JSON object; a new, empty one if there is no text."""
    return json.loads(text) if text and text != "{}" else {}


def update_document(text: str | None, change: str) -> str:
    """Return the JSON object `text` with the top-level keys of the object `change` set."""
    return json.dumps((json.loads(text) if text else {}) | json.loads(change))
