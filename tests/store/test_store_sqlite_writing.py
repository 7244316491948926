"""Who writes to an SQLite file next, where several processes write all the time."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from lapse.store.sqlite import neighbours
from lapse.store.sqlite.writing import WriteLock
from serving import eventually

LONG = timedelta(seconds=30)


@pytest.fixture
def path(tmp_path):
    name = str(tmp_path / "lapse.db")
    with sqlite3.connect(name) as made:
        made.execute("PRAGMA journal_mode = WAL")
    made.close()
    return name


@pytest.fixture
def met(tmp_path, monkeypatch):
    """A folder in which this process meets other workers, until the test ends."""
    folder = tmp_path / "met"
    folder.mkdir()
    monkeypatch.setattr(neighbours, "_folders", [folder])
    return folder


class Writer:
    """What one process has: a connection that does not wait by itself, and the lock."""

    def __init__(self, path, patience=LONG):
        self.connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        self.lock = WriteLock(path, patience)

    def begin(self):
        return self.lock.begin(self.connection)

    def commit(self):
        self.connection.execute("COMMIT")


def is_queued(folder):
    """Return whether somebody is the next to write."""
    (place,) = folder.iterdir()
    queue = os.open(place, os.O_RDWR)
    try:
        fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(queue)
    return False


def test_who_waits_writes_before_who_has_just_written(path, met):
    """Seen to fail without the queue: who has written is first again."""
    order = []

    def wait():
        waiting = Writer(path)
        assert waiting.begin() is True
        order.append("other")
        waiting.commit()

    one = Writer(path)
    assert one.begin() is False
    other = threading.Thread(target=wait, daemon=True)
    other.start()
    eventually(lambda: is_queued(met))
    one.commit()
    one.begin()
    order.append("one")
    one.commit()
    other.join(30)
    assert order == ["other", "one"]


@pytest.mark.usefixtures("met")
def test_who_waits_too_long_is_told_so(path):
    """Seen to fail without a look at the time: it waits for ever."""
    one, other = Writer(path), Writer(path, timedelta(milliseconds=20))
    one.begin()
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        other.begin()
    one.commit()
    assert other.begin() is False


def test_a_queue_that_does_not_move_holds_nobody_up(path, met):
    """A stopped process may stand in it. SQLite's own lock is what counts.

    Seen to fail where only the lock on the queue is waited for.
    """
    writer = Writer(path)
    writer.begin()
    writer.commit()
    (place,) = met.iterdir()
    with place.open() as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        assert writer.begin() is True
        writer.commit()


def test_a_killed_process_leaves_the_queue(path, met):
    writer = Writer(path)
    writer.begin()
    writer.commit()
    (place,) = met.iterdir()
    program = (
        "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('next', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"next\n"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert writer.begin() is False
    writer.commit()


def test_without_workers_nothing_is_written_beside_the_database(path, tmp_path):
    writer = Writer(path)
    assert writer.begin() is False
    writer.commit()
    assert {one.name for one in tmp_path.iterdir()} <= {
        f"lapse.db{suffix}" for suffix in ("", "-wal", "-shm")
    }


def test_where_files_have_no_locks_nobody_queues(path, met, monkeypatch):
    """Seen to fail where the error of `flock` fails the transaction."""

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    writer = Writer(path)
    assert writer.begin() is False
    writer.commit()
    assert list(met.iterdir())


def test_a_server_that_ends_has_no_queue_any_more(path, met):
    met.rmdir()
    writer = Writer(path)
    assert writer.begin() is False
    writer.commit()
