"""Gives a process its logging back after code that configures it, as every command does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logging_restored() -> Iterator[None]:
    """Restore the root's handlers, every logger's level and how warnings are shown.

    A level that stays behind silences the next test of the process that reads log lines.
    """
    root = logging.getLogger()
    handlers, levels = list(root.handlers), {logger: logger.level for logger in _loggers()}
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        for logger in _loggers():
            logger.setLevel(levels.get(logger, logging.NOTSET))


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logging.getLogger(), *(one for one in known if isinstance(one, logging.Logger))]
