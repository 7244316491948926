"""The text of log lines: for people, or a JSON object for each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

_OF_RECORDS: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""The attributes of every record; any other is a field that the caller gave to the line."""

_OWN: Final = ("timestamp", "level", "event", "logger")
_NEEDS_QUOTES: Final = set(" \t=\"'")
_EVENT_WIDTH: Final = 30
_LEVEL_WIDTH: Final = 9

_RESET, _DIM, _BOLD = "\x1b[0m", "\x1b[2m", "\x1b[1m"
_COLORS: Final = {"info": "\x1b[32m", "warning": "\x1b[33m", "debug": "\x1b[36m"}
_ALARM: Final = "\x1b[31m"


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a line: what was said, how urgent it is, who said it, when, and more.

    Names and texts are on one line each, with unprintable characters as escapes.
    """
    given = {
        visible(name): visible(value.rstrip("\n")) if isinstance(value, str) else value
        for name, value in vars(record).items()
        if name not in _OF_RECORDS
    }
    said = datetime.fromtimestamp(record.created, UTC)
    return {
        "event": visible(record.getMessage().rstrip("\n")),
        "level": record.levelname.lower(),
        "logger": visible(record.name),
        "timestamp": said.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        **given,
        **({"stack_info": visible(record.stack_info)} if record.stack_info else {}),
    }


def as_json(fields: Mapping[str, Any], exception: str | None) -> str:
    """Return the fields as a JSON object; what JSON does not know is its `repr`."""
    told = fields if exception is None else {**fields, "exception": exception}
    return json.dumps(told, default=repr)


def as_text(fields: Mapping[str, Any], exception: str | None, *, colored: bool) -> str:
    """Return the fields on one line, and the exception on the lines below."""
    when, level, event, logger = (str(fields[name]) for name in _OWN)
    padded = f"{level:<{_LEVEL_WIDTH}}"
    event = f"{event:<{_EVENT_WIDTH}}"
    if colored:
        color = _COLORS.get(level, _ALARM)
        when, padded = f"{_DIM}{when}{_RESET}", f"{color}{padded}{_RESET}"
        event = f"{_BOLD}{event}{_RESET}"
    line = " ".join((f"{when} [{padded}] {event} [{logger}]", *_pairs(fields)))
    return line if exception is None else f"{line}\n{exception}"


def _pairs(fields: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(fields.keys() - set(_OWN)):
        value = fields[name]
        if not isinstance(value, str):
            yield f"{name}={visible(repr(value))}"
        else:
            yield f"{name}={value if _NEEDS_QUOTES.isdisjoint(value) else repr(value)}"


def visible(text: str) -> str:
    """Return the text on one line, with unprintable characters as escapes."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
