"""Begins transactions that write: one process at a time may write to a file."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import blake2b
from typing import Final

from lapse.store.sqlite import neighbours

_FIRST_PAUSE: Final = timedelta(microseconds=50)
_LONGEST_PAUSE: Final = timedelta(milliseconds=1)
"""How soon a process that waits looks again. SQLite's own waiting pauses for up to a tenth of a
second, and another process that writes all the time gets the lock back before that."""

_LONGEST_QUEUE: Final = timedelta(milliseconds=100)
"""How long a worker queues before it asks SQLite all the same: the one before it may be stopped."""


class WriteLock:
    """Begins transactions that write; waits for the lock while another process has it.

    SQLite gives the lock to whoever comes first, and a process that writes all the time is first
    again and again. So the workers of one server queue: only the next one asks SQLite, and one that
    has just written queues behind it.

    Args:
        path: the database's file.
        patience: how long to wait.
    """

    def __init__(self, path: str, patience: timedelta) -> None:
        self._patience = patience.total_seconds()
        self._name = f"writes-{blake2b(path.encode(), digest_size=8).hexdigest()}"

    def begin(self, connection: sqlite3.Connection) -> bool:
        """Begin a transaction on a connection that does not wait by itself.

        Return whether it had to wait.

        Raises:
            sqlite3.OperationalError: another process has the lock all the time, or SQLite fails.
        """
        give_up = time.monotonic() + self._patience
        with self._as_next() as has_queued:
            return _wait_for(lambda: _has_begun(connection, give_up)) or has_queued

    @contextmanager
    def _as_next(self) -> Iterator[bool]:
        """Be the worker that may ask for the lock; a no-op outside a worker.

        It yields whether this process had to queue. The queue is for fairness alone: that one
        process writes at a time is SQLite's promise. If this process is killed, the kernel lets
        the next one in.
        """
        place = neighbours.place(self._name)
        if place is None:
            yield False
            return
        try:
            queue = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # the server has ended and removed the folder, or no file can be opened
            yield False
            return
        until = time.monotonic() + _LONGEST_QUEUE.total_seconds()
        try:
            yield _wait_for(lambda: _is_taken(queue) or time.monotonic() > until)
        finally:
            os.close(queue)


def _wait_for(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds; return whether that took time."""
    if condition():
        return False
    pause = _FIRST_PAUSE
    while True:
        time.sleep(pause.total_seconds())
        if condition():
            return True
        pause = min(pause * 1.25, _LONGEST_PAUSE)


def _has_begun(connection: sqlite3.Connection, give_up: float) -> bool:
    """Begin a transaction; return False if another process writes, and there is time left."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        if not is_busy or time.monotonic() > give_up:
            raise
        return False
    return True


def _is_taken(queue: int) -> bool:
    """Take the lock on a file; return False if another process has it."""
    try:
        fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the folder is on a file system without locks, so nobody queues
        return True
    return True
