"""Processes of `lapse` that share one import of ADK, which takes seconds.

Each is forked from a process that has imported it, and is a real process otherwise: with a folder,
an environment, a log and signals of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import prefixed

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["lapse.cli.serve", "lapse.web.server", "google.adk.cli.fast_api"])


class Forked:
    """A process, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        errors: Path | None = None,
        prefix: str = "",
    ) -> None:
        """Begin it. What it prints is appended to `log` and, where there is one, to `errors`."""
        files = (str(log), str(errors or log))
        given = (list(arguments), str(cwd), dict(env), files, prefix)
        self._process = _CONTEXT.Process(target=_run, args=given, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired("lapse", timeout or 0)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    arguments: list[str], folder: str, env: dict[str, str], files: tuple[str, str], prefix: str
) -> None:
    """Be `lapse`, in the forked process."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    # Nothing of the tests can be imported that `lapse` could not import.
    support = Path(__file__).parent
    sys.path[:] = [one for one in sys.path if not Path(one).is_relative_to(support.parent)]
    sys.argv = ["lapse", *arguments]
    sys.orig_argv = [sys.executable, *sys.argv]
    prefixed.run(prefix)
