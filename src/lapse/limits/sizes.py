"""How large a parsed document is: its values, its text, and its length as JSON."""

from __future__ import annotations

from typing import Final

_FILES: Final = frozenset({"inlineData", "inline_data", "blob"})
"""The names of fields that hold a file, in base64."""

FREE: Final = frozenset(
    {
        *("args", "response", "output", "payload"),
        *("stateDelta", "state_delta", "partMetadata", "part_metadata"),
    }
)
"""The names of fields, anywhere in ADK's messages and events, in which any JSON will do."""


def typed_in(entry: object) -> int:
    """Return how many values ADK's models have a type for; FREE fields count as one value."""
    waiting: list[object] = [entry]
    count = 1
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            count += len(value)
            waiting.extend(inner for name, inner in value.items() if name not in FREE)
        elif isinstance(value, list):
            count += len(value)
            waiting.extend(value)
    return count


def text_in(document: object) -> int:
    """Return how many characters the strings of a document have together, besides files."""
    waiting: list[object] = [document]
    size = 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict):
            size += sum(map(len, value))
            waiting.extend(inner for name, inner in value.items() if name not in _FILES)
        elif isinstance(value, list):
            waiting.extend(value)
    return size


def size_of(value: object) -> int:
    """Return about how many characters a value has as JSON."""
    if isinstance(value, dict):
        return sum(len(name) + 4 + size_of(inner) for name, inner in value.items())
    if isinstance(value, list):
        return sum(2 + size_of(inner) for inner in value)
    return len(value) + 2 if isinstance(value, str) else 4
