"""A rate limit for log lines that strangers can cause at will."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Final

_LINES: Final = 10
_INTERVAL: Final = timedelta(seconds=10)


class LogRateLimit(logging.Filter):
    """Lets ten lines of one text through in ten seconds, and has the next one name the rest.

    A text is a line before its arguments are filled in, so a logger has few of them. Errors
    always pass: each has a traceback of its own. Add it to a logger, not to a handler.
    """

    def __init__(self, lines: int = _LINES, interval: timedelta = _INTERVAL) -> None:
        super().__init__()
        self._most = lines
        self._interval = interval.total_seconds()
        self._windows: dict[str, _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written; the first after others were not tells how many."""
        if record.levelno >= logging.ERROR:
            return True
        text, now = str(record.msg), time.monotonic()
        window = self._windows.setdefault(text, _Window(now))
        if now - window.since >= self._interval:
            if window.lines > self._most:
                record.msg = f"{text} ({window.lines - self._most} more were not written)"
            window = self._windows[text] = _Window(now)
        window.lines += 1
        return window.lines <= self._most


class _Window:
    """How many lines of a text there were, and since when they are counted."""

    __slots__ = ("lines", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.lines = 0
