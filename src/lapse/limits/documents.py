"""Reads JSON from a request: measures it first, and parses it once."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any, Final

from lapse.core.request import Body
from lapse.limits.rules import (
    DEEPEST_JSON,
    LONGEST_NUMBER,
    LONGEST_VALUE,
    MOST_BEYOND_ASCII,
    MOST_ESCAPES,
    MOST_VALUES,
    Fault,
    too_large,
)

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_ASCII: Final = bytes(range(128))
_WHITE_SPACE: Final = b" \t\r\n"
_BRACKETS: Final = b"[]{}"
_ALL_BUT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def read_document(raw: bytes) -> Body | Fault:
    """Return JSON parsed, or a fault if the text is not UTF-8 or the JSON too large or too deep.

    Invalid JSON is no fault: the body holds the parser's error, which its route answers.

    Args:
        raw: a body of at least one byte.
    """
    if fault := _fault_of_text(raw):
        return fault
    values = _values_of(raw)
    if isinstance(values, Fault):
        return values
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return Fault(400, "body: must be UTF-8")
    try:
        document = _DECODER.decode(text)
    except ValueError as error:
        return Body(raw, is_document=True, error=error, values=values)
    fields = document if isinstance(document, dict) else {}
    repeated = document.repeated if isinstance(document, _Repeated) else frozenset[str]()
    return Body(raw, True, document, fields, repeated, values=values)


def _fault_of_text(raw: bytes) -> Fault | None:
    if raw.startswith(_BYTE_ORDER_MARK):
        return Fault(400, "body: must be UTF-8 without a byte order mark")
    if b"\0" in raw:
        # Every text in UTF-16 or UTF-32 with a bracket or a quote in it has some.
        return Fault(400, "body: must be UTF-8 without NUL bytes")
    if raw.count(b"\\") > MOST_ESCAPES:
        return too_large(f"body: must have at most {MOST_ESCAPES} backslashes")
    if len(raw) > MOST_BEYOND_ASCII and len(raw.translate(None, _ASCII)) > MOST_BEYOND_ASCII:
        return too_large(f"body: must have at most {MOST_BEYOND_ASCII} bytes beyond ASCII")
    return None


def _values_of(raw: bytes) -> int | Fault:
    """Return an upper bound of the number of values in JSON, without parsing it; or a fault.

    Each step is one call of a C function that takes milliseconds for megabytes, and other threads
    have their turn between the steps. What follows the first error in the JSON may be counted
    wrong, but no parser reads it.
    """
    if len(raw) <= LONGEST_NUMBER:
        # It has at most so many values, even if none of these characters is inside a string.
        most = raw.count(b",") + raw.count(b"[") + raw.count(b"{")
        if most <= DEEPEST_JSON:
            return most + 1
    many = too_large(f"body: must have at most {MOST_VALUES} values")
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if raw.count(b'"') > 4 * MOST_VALUES:
        return many
    # The text outside of strings.
    bare = b"".join(raw.split(b'"')[::2]).translate(None, _WHITE_SPACE)
    values = sum(map(bare.count, (b"[", b"{", b",")))
    if values > MOST_VALUES:
        return many
    if len(bare) > LONGEST_VALUE * values + LONGEST_NUMBER:
        return too_large(f"body: numbers must have at most {LONGEST_VALUE} characters on average")
    steps = map(_STEPS.__getitem__, bare.translate(None, _ALL_BUT_BRACKETS))
    if values > DEEPEST_JSON and max(accumulate(steps), default=0) > DEEPEST_JSON:
        return Fault(400, f"body: must not be nested more than {DEEPEST_JSON} deep")
    return values + 1


class _Repeated(dict[str, Any]):
    """An object in which a name comes twice; the last one counts, as in `json`."""

    repeated: frozenset[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    told = _Repeated(made)
    seen = set[str]()
    told.repeated = frozenset(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    return told


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object)
