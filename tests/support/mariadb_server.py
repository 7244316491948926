"""A real MariaDB for the tests: Debian's, started once per run on a socket of its own."""

import atexit
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pymysql

import scratch

PATIENCE = 60.0
"""Seconds within which the server must answer."""

UTF8 = ("--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci")
"""As Debian configures it; without a configuration MariaDB's default is latin1."""


@cache
def server() -> Path:
    """Start a server that ends with this process, and return its socket."""
    program = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
    assert Path(program).exists(), "apt-get install mariadb-server: .ci/run does it, too"
    folder = scratch.folder("mariadb")
    data, socket = folder / "data", folder / "mariadb.sock"
    user = [f"--user={'root' if os.geteuid() == 0 else os.getlogin()}"]
    common = ["--no-defaults", *user, f"--datadir={data}"]
    with (folder / "server.log").open("wb") as log:
        subprocess.run(
            ["mariadb-install-db", *common, "--auth-root-authentication-method=normal"],
            stdout=log,
            stderr=log,
            check=True,
        )
        started = subprocess.Popen(
            [
                program,
                *common,
                *UTF8,
                f"--socket={socket}",
                f"--pid-file={data}/mariadb.pid",
                "--skip-networking",
                # The data is not worth a disk's time here.
                "--innodb-flush-log-at-trx-commit=0",
            ],
            stdout=log,
            stderr=log,
        )
    atexit.register(_end, started)
    _wait_for(started, folder / "server.log")
    return socket


def _end(started: subprocess.Popen[bytes]) -> None:
    started.terminate()
    try:
        started.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


def _wait_for(started: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers; without an answer, fail with its log."""
    until = time.monotonic() + PATIENCE
    while started.poll() is None and time.monotonic() < until:
        if "ready for connections" in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"MariaDB does not answer:\n{log.read_text()[-2000:]}")


def _connect(socket: Path) -> "pymysql.Connection":
    return pymysql.connect(unix_socket=str(socket), user="root", autocommit=True)


def _run(command: str) -> None:
    connection = _connect(server())
    try:
        with connection.cursor() as cursor:
            cursor.execute(command)
    finally:
        connection.close()


@contextmanager
def database() -> Iterator[str]:
    """Yield the URL of an empty database, as ADK's DatabaseSessionService takes it."""
    name = f"test_{uuid.uuid4().hex}"
    _run(f"CREATE DATABASE {name}")
    try:
        yield f"mysql+aiomysql://root@/{name}?unix_socket={server()}"
    finally:
        _run(f"DROP DATABASE {name}")
