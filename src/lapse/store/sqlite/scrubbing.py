"""Taking what was deleted out of the bytes of an SQLite file and its log."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

from lapse.core.errors import StoreUnavailableError
from lapse.store.sqlite.schema import connect

_PATIENCE: Final = timedelta(seconds=30)
"""How long to wait until no other process writes, and none reads what the log had before."""

_PAUSE: Final = timedelta(milliseconds=100)

_REMAINS: Final = (
    "the log beside the file: another process reads what was there before; run it again once that "
    "has ended"
)


def scrubbed(path: str) -> str | None:
    """Rewrite a file without the deleted bytes and empty its log; return what remains. Blocks.

    `secure_delete` would not be enough: it overwrites what its own connection deletes, and not
    what others have deleted, nor what was moved from page to page before.

    Raises:
        StoreUnavailableError: SQLite cannot do it, or another process writes all the time.
    """
    give_up = time.monotonic() + _PATIENCE.total_seconds()
    with closing(connect(path, cache=4000)) as connection:
        try:
            _vacuum(connection, give_up)
            while not _log_is_empty(connection, path):
                if time.monotonic() >= give_up:
                    return _REMAINS
                time.sleep(_PAUSE.total_seconds())
        except sqlite3.Error as error:
            place = Path(path).absolute()
            raise StoreUnavailableError(f"SQLite ({place}): {error}") from error
    return None


def _vacuum(connection: sqlite3.Connection, give_up: float) -> None:
    """Write the whole file anew, without free pages and without what its pages do not use."""
    while True:
        try:
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            is_busy = getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
            if not is_busy or time.monotonic() >= give_up:
                raise
            time.sleep(_PAUSE.total_seconds())
        else:
            return


def _log_is_empty(connection: sqlite3.Connection, path: str) -> bool:
    """Move the log into the file and cut it off, unless somebody still reads from it."""
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    log = Path(f"{path}-wal")
    return not busy and (not log.exists() or log.stat().st_size == 0)
