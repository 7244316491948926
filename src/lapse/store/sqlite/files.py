"""Whether the files of an open database still are those at its path."""

from __future__ import annotations

import logging
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from lapse.core.errors import StoreUnavailableError

_SUFFIXES: Final = ("", "-wal", "-shm")
"""The database itself, its log, and the index of the log that all processes share."""

_EVERY: Final = timedelta(seconds=1)
"""A look is short, but a thread that looks then has to wait for the interpreter's lock."""

_Identity = tuple[int, int] | None

_log = logging.getLogger(__name__)


class OpenFiles:
    """The files of a database that is open for writing.

    SQLite goes on writing to a file that was removed or replaced, and nobody ever reads that again.
    One line is logged when it is noticed, and one if the files are back.

    Args:
        path: where the database was opened; a connection has read it since.
    """

    def __init__(self, path: str) -> None:
        # Absolute, because the process may change its directory.
        self._path = os.path.abspath(path)  # noqa: PTH100 - the same as SQLite does
        self._opened = self._look()
        self._looked_at = time.monotonic()
        self._are_gone = False

    def check(self) -> None:
        """Look at the files, unless that was done a moment ago.

        Raises:
            StoreUnavailableError: a file is gone, or another one has its name.
        """
        now = time.monotonic()
        if not self._are_gone and now - self._looked_at < _EVERY.total_seconds():
            return
        self._looked_at = now
        were_gone, self._are_gone = self._are_gone, self._look() != self._opened
        if self._are_gone:
            reason = (
                f"{self._path} was removed or replaced while this process had it open; stop the "
                "process, put the file back with its -wal and -shm files, and start again"
            )
            if not were_gone:
                _log.error("nothing is written any more: %s", reason)
            raise StoreUnavailableError(f"SQLite: {reason}")
        if were_gone:
            _log.warning("%s is back, and is written again", self._path)

    def _look(self) -> list[_Identity]:
        return [_identity(f"{self._path}{suffix}") for suffix in _SUFFIXES]


def _identity(path: str) -> _Identity:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
