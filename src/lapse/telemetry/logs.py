"""Structured log lines of changes, with at most 8 characters of a session id."""

from __future__ import annotations

import json
import logging
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from lapse.core.clock import iso_or_none
from lapse.core.errors import StoreRefusedError, StoreUnavailableError
from lapse.core.keys import SHOWN_ID
from lapse.core.lifecycle import Change, ChangeKind, Expiries
from lapse.telemetry.lines import as_json, as_text, fields_of, visible


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


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What is logged, and how.

    Attributes:
        style: the format of the lines.
        level: the level from which on Lapse and your own code, such as that of agents, log.
        packages: the level from which on installed packages log; None: WARNING, or `level` if that
            is higher. ADK's lines at INFO, and those of packages that talk to models, repeat the
            content of requests.
        error_texts: whether an exception of code that is not Lapse's is logged with its text, which
            may quote the conversation.
    """

    style: LogFormat = LogFormat.CONSOLE
    level: LogLevel = LogLevel.INFO
    packages: LogLevel | None = None
    error_texts: bool = False


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
    ChangeKind.ARCHIVING: (logging.DEBUG, "session about to be archived"),
    ChangeKind.ARCHIVED: (logging.INFO, "session archived"),
    ChangeKind.RESTORED: (logging.INFO, "session restored"),
}

_UUID: Final = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")

_QUOTED: Final = re.compile(r"(input_value=).*?(?=, input_type=|$)", re.DOTALL)

_STANDARD_LIBRARY: Final = sysconfig.get_path("stdlib")

_OF_THE_STORE: Final = (StoreUnavailableError, StoreRefusedError)
"""Errors whose texts are about the store alone."""

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
        case ChangeKind.ARCHIVING:
            facts["archives_at"] = iso_or_none(record.archives_at)
        case ChangeKind.ARCHIVED:
            facts["restorable_until"] = iso_or_none(record.restorable_until)
        case ChangeKind.RESURRECTED | ChangeKind.RESTORED:
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

    It finds UUIDs, which ADK's ids are, and the id of `shortening`, whatever escapes it has.
    """
    session_id = _session_id.get()
    if len(session_id) > SHOWN_ID:
        for whole, short in _forms(session_id):
            text = text.replace(whole, short)
    return _QUOTED.sub(r"\1…", _UUID.sub(r"\1", text))


@lru_cache(maxsize=256)
def _forms(session_id: str) -> tuple[tuple[str, str], ...]:
    """Return the id in each form in which a line may have it, and that form of what is shown."""
    escapes: tuple[Callable[[str], str], ...] = (
        str,
        visible,
        lambda text: repr(text)[1:-1],
        lambda text: json.dumps(text)[1:-1],
        lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
        lambda text: quote(text, errors="replace"),
        lambda text: quote(text, safe="", errors="replace"),
    )
    forms = {escape(session_id): escape(session_id[:SHOWN_ID]) for escape in escapes}
    return tuple(sorted(forms.items(), key=lambda form: len(form[0]), reverse=True))


def _shortened(value: object) -> object:
    """Return a field's value with `shorten` done to each text in it, before JSON escapes them."""
    match value:
        case str():
            return shorten(value)
        case None | bool() | int() | float():
            return value
        case list() | tuple():
            return [_shortened(one) for one in value]
        case dict():
            return {shorten(str(name)): _shortened(one) for name, one in value.items()}
        case _:
            return shorten(visible(repr(value)))


def configure_logging(options: LogOptions, *, worker: int | None = None) -> None:
    """Send the lines of all loggers to standard error in one format, with session ids shortened.

    `worker` is the number of this process among several of one server; each line has it.
    """
    own: int = logging.getLevelName(options.level)
    packages = max(own, logging.WARNING)
    if options.packages is not None:
        packages = logging.getLevelName(options.packages)
    handler = logging.StreamHandler()
    formatter = _ShorteningFormatter(options, worker, colored=sys.stderr.isatty())
    handler.setFormatter(formatter)
    handler.addFilter(
        lambda record: record.levelno >= (packages if _is_of_a_package(record) else own)
    )
    logging.basicConfig(handlers=[handler], level=min(own, packages), force=True)
    # To make a line that is not shown takes time in every run.
    logging.getLogger("google_adk").setLevel(packages)
    # ADK warns that parts of itself are experimental; an operator can do nothing about it.
    warnings.filterwarnings("ignore", message=r"\[EXPERIMENTAL\]")
    logging.captureWarnings(capture=True)
    logging.getLogger("lapse").setLevel(own)


def _is_of_a_package(record: logging.LogRecord) -> bool:
    """Return whether a record is of code that is installed, and not of Lapse."""
    if record.name.partition(".")[0] == "lapse":
        return False
    place = record.pathname
    return (
        "site-packages" in place
        or "dist-packages" in place
        or place.startswith(_STANDARD_LIBRARY)
        or not place.endswith(".py")  # compiled, or frozen into Python
    )


class _ShorteningFormatter(logging.Formatter):
    """Writes lines in which session ids are shortened, each on one line but for exceptions.

    Of an exception in code that is not Lapse's it writes only the types and where they were raised,
    unless the options say otherwise: the message of an exception from an agent, from ADK or from a
    model may quote the conversation. What a store says of itself is always written.
    """

    def __init__(self, options: LogOptions, worker: int | None, *, colored: bool) -> None:
        super().__init__()
        self._told_always = {} if worker is None else {"worker": worker}
        self._shape = options.style
        self._quotes_all = options.error_texts
        self._colored = colored

    def format(self, record: logging.LogRecord) -> str:
        quoting = self._quotes_all or record.name.partition(".")[0] == "lapse"
        if isinstance(record.args, tuple) and not quoting:
            record = logging.makeLogRecord(record.__dict__)
            record.args = tuple(map(_named, record.args or ()))
        error = record.exc_info[1] if record.exc_info else None
        exception = None if error is None else shorten("".join(_frames(error, quoting=quoting)))
        fields = {name: _shortened(value) for name, value in fields_of(record).items()}
        fields |= self._told_always
        match self._shape:
            case LogFormat.JSON:
                return as_json(fields, exception)
            case LogFormat.CONSOLE:
                return as_text(fields, exception, colored=self._colored)


def _named(argument: object) -> object:
    """Return an exception's type if its text may quote the conversation, else the argument."""
    is_secret = isinstance(argument, BaseException) and not isinstance(argument, _OF_THE_STORE)
    return type(argument).__name__ if is_secret else argument


def _frames(error: BaseException, *, quoting: bool) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _frames(cause, quoting=quoting)
        yield "\n"
    yield from traceback.format_tb(error.__traceback__)
    is_told = (quoting or isinstance(error, _OF_THE_STORE)) and str(error)
    said = f": {visible(str(error))}" if is_told else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}{said}\n"


def seconds_of(duration: timedelta) -> float:
    """Return a duration in seconds, rounded to the millisecond, for a log line."""
    return round(duration.total_seconds(), 3)
