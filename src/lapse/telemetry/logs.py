"""Structured log lines of changes, with at most 8 characters of a session id."""

from __future__ import annotations

import logging
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

import structlog

from lapse.core.clock import iso_or_none
from lapse.core.keys import SHOWN_ID
from lapse.core.lifecycle import Change, ChangeKind, Expiries


class LogFormat(StrEnum):
    """The format of log lines: text for people, or a JSON object for each line."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The level from which on lines are logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


_LINES: Final = {
    ChangeKind.CREATED: (logging.DEBUG, "session scheduled"),
    ChangeKind.USED: (logging.INFO, "session marked as used"),
    ChangeKind.EXTENDED: (logging.INFO, "session extended"),
    ChangeKind.AMENDED: (logging.INFO, "session amended"),
    ChangeKind.EXPIRED: (logging.INFO, "session expired"),
    ChangeKind.RESURRECTED: (logging.INFO, "session resurrected"),
    ChangeKind.PURGED: (logging.INFO, "session purged"),
    ChangeKind.DELETED: (logging.INFO, "session deleted"),
    ChangeKind.KEPT: (logging.DEBUG, "session kept because it has messages"),
    ChangeKind.ADOPTED: (logging.INFO, "session adopted"),
}

_UUID: Final = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")

_QUOTED: Final = re.compile(r"(input_value=).*?(?=, input_type=|$)", re.DOTALL)

_STANDARD_LIBRARY: Final = sysconfig.get_path("stdlib")

_changes_log = logging.getLogger("lapse.changes")
_session_id: ContextVar[str] = ContextVar("lapse_log_session_id", default="")


def log_change(change: Change) -> None:
    """Log one change, with the facts of its kind; it is a consumer of the feed."""
    level, line = _LINES[change.kind]
    if not _changes_log.isEnabledFor(level):
        return
    record = change.record
    facts: dict[str, Any] = {"app": record.key.app_name, "session": record.key.short}
    match change.kind:
        case ChangeKind.CREATED | ChangeKind.EXTENDED | ChangeKind.AMENDED:
            facts["expires_at"] = iso_or_none(record.expires_at)
        case ChangeKind.USED:
            facts["age_s"] = seconds_of(change.age)
        case ChangeKind.EXPIRED:
            facts["lateness_s"] = seconds_of(change.lateness or timedelta(0))
            facts["restorable_until"] = iso_or_none(record.restorable_until)
        case ChangeKind.RESURRECTED:
            facts["cause"] = str(change.cause)
        case ChangeKind.PURGED | ChangeKind.DELETED | ChangeKind.KEPT | ChangeKind.ADOPTED:
            pass
    _changes_log.log(level, line, extra=facts)


def log_expiries(expiries: Expiries) -> None:
    """Log expiries of a backlog on one line; it is a consumer of the feed."""
    facts = {
        "app": expiries.app_name,
        "sessions": len(expiries),
        "latest_s": seconds_of(expiries.latest),
    }
    _changes_log.info("sessions expired", extra=facts)


@contextmanager
def shortening(session_id: str) -> Iterator[None]:
    """Shorten this session id in every line that this task logs inside the block.

    If the block raises, the id is shortened for the rest of the task, because the server logs the
    error later.
    """
    token = _session_id.set(session_id)
    yield
    _session_id.reset(token)


def shorten(text: str) -> str:
    """Return the text with session ids cut to 8 characters and without input quoted by pydantic.

    It finds UUIDs, which ADK's ids are, and the id of `shortening`.
    """
    session_id = _session_id.get()
    if len(session_id) > SHOWN_ID:
        text = text.replace(session_id, session_id[:SHOWN_ID])
    return _QUOTED.sub(r"\1…", _UUID.sub(r"\1", text))


def configure_logging(style: LogFormat, level: LogLevel = LogLevel.INFO) -> None:
    """Send the lines of all loggers to standard error in one format, with session ids shortened.

    Lapse and your own code, such as that of agents, log from `level` on. Installed packages log
    from WARNING on, if `level` is not higher: ADK's lines at INFO, and those of packages that talk
    to models, repeat the content of requests.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    last: list[Any]
    match style:
        case LogFormat.JSON:
            last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        case LogFormat.CONSOLE:
            renderer = structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
            last = [renderer]
    handler = logging.StreamHandler()
    handler.setFormatter(
        _ShorteningFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _all_visible,
                *last,
            ],
        )
    )
    handler.addFilter(_may_be_shown)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Its lines below WARNING are never shown, and to make them takes time in every run.
    logging.getLogger("google_adk").setLevel(max(logging.getLevelName(level), logging.WARNING))
    # ADK warns that parts of itself are experimental; an operator can do nothing about it.
    warnings.filterwarnings("ignore", message=r"\[EXPERIMENTAL\]")
    logging.captureWarnings(capture=True)
    logging.getLogger("lapse").setLevel(level)


def _may_be_shown(record: logging.LogRecord) -> bool:
    """Return whether a record is a warning, or one of Lapse or of code that is not installed."""
    if record.levelno >= logging.WARNING or record.name.partition(".")[0] == "lapse":
        return True
    place = record.pathname
    return not (
        "site-packages" in place
        or "dist-packages" in place
        or place.startswith(_STANDARD_LIBRARY)
        or not place.endswith(".py")  # compiled, or frozen into Python
    )


class _ShorteningFormatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        ours = record.name.partition(".")[0] == "lapse"
        return shorten(super().format(_with_safe_exception(record, quoting=ours)))


def _with_safe_exception(record: logging.LogRecord, *, quoting: bool) -> logging.LogRecord:
    """Return the record with its exception as text that has no line breaks but those of frames.

    Without `quoting`, the text has only the types of exceptions and where they were raised: the
    message of an exception from an agent, from ADK or from a model may quote the conversation.
    """
    safe = logging.makeLogRecord(record.__dict__)
    if isinstance(record.args, tuple) and not quoting:
        safe.args = tuple(
            type(arg).__name__ if isinstance(arg, BaseException) else arg for arg in record.args
        )
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        safe.exc_info = safe.exc_text = None
        # structlog's renderers read the text of an exception from this field.
        safe.exception = "".join(_frames(error, quoting=quoting))
    return safe


def _frames(error: BaseException, *, quoting: bool) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _frames(cause, quoting=quoting)
        yield "\n"
    yield from traceback.format_tb(error.__traceback__)
    said = f": {visible(str(error))}" if quoting and str(error) else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}{said}\n"


def visible(text: str) -> str:
    """Return the text on one line, with unprintable characters as escapes."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def _all_visible(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Escape unprintable characters in the names and values of a line; a structlog processor."""
    return {
        visible(name): visible(value.rstrip("\n"))
        if isinstance(value, str) and name != "exception"
        else value
        for name, value in event.items()
    }


def seconds_of(duration: timedelta) -> float:
    """Return a duration in seconds, rounded to the millisecond, for a log line."""
    return round(duration.total_seconds(), 3)
