"""Folders of a test process in the temporary folder: they go with it, however it ends.

A process that ends by itself removes its folders. One that is killed cannot; the next one that
makes a folder removes them, and ends a server of PostgreSQL, MariaDB or Valkey that runs in one.
Whether a process lives shows in a lock that it holds, because its id may be another's by now.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

_PREFIX = "lapse-tests-"
_LOCK = ".lock"

_MEMORY = "/dev/shm"
_ROOM = 4 * 2**30
"""A whole run takes half a GiB, and a few tests a GiB for a moment."""


def use_memory() -> None:
    """Keep temporary files in memory, if it has room: none of them is worth a disk's time.

    `TMPDIR` says otherwise where it is set.
    """
    with suppress(OSError):
        found = os.statvfs(_MEMORY)
        has_room = found.f_bavail * found.f_frsize >= _ROOM and not found.f_flag & os.ST_NOEXEC
        if has_room and os.environ.setdefault("TMPDIR", _MEMORY) == _MEMORY:
            tempfile.tempdir = None  # it is looked for once


def folder(kind: str) -> Path:
    """Make a folder, such as `lapse-tests-postgres-…`, that lasts as long as this process."""
    _remove_leftovers()
    made = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
    lock = (made / f"{_LOCK}.new").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    Path(lock.name).rename(made / _LOCK)  # only a lock that is held has this name
    atexit.register(_remove, made, lock)
    return made


def _remove(made: Path, _held: object) -> None:
    """Remove a folder at the end; the lock is held until then, because this function has it."""
    shutil.rmtree(made, ignore_errors=True)


@cache
def _remove_leftovers() -> None:
    remove_leftovers(Path(tempfile.gettempdir()))


def remove_leftovers(place: Path) -> None:
    """Remove the folders of processes that were killed."""
    for left in place.glob(f"{_PREFIX}*"):
        with suppress(OSError), (left / _LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
            for name in ("postmaster.pid", "mariadb.pid", "valkey.pid"):
                for running in left.rglob(name):
                    _end(running)
            shutil.rmtree(left, ignore_errors=True)


def _end(running: Path) -> None:
    """End the server that a file of its own names, if it does run in the file's folder."""
    with suppress(OSError, ValueError):
        pid = int(running.read_text().splitlines()[0])
        if Path(f"/proc/{pid}/cwd").resolve() == running.parent.resolve():
            os.kill(pid, signal.SIGQUIT)


once = cache(folder)
"""Return the folder of a kind that all callers in this process share."""
