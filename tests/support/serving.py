"""A real `lapse serve` in a process of its own, on a real socket."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx

import prefixed
from forked import Forked

LAPSE: Final = str(Path(sys.executable).with_name("lapse"))
AGENTS: Final = Path(__file__).with_name("agents")
USER: Final = "ada"

BROKEN: Final = "BROKEN_ON_PURPOSE"
"""The setting that names a break of `breaks`, with which a server is started."""

_URL: Final = re.compile(r"http://127\.0\.0\.1:\d+")


def copied_agents(folder: Path) -> Path:
    """Copy the agents into a new folder, without what ADK keeps beside those that it serves."""
    kept = shutil.ignore_patterns("__pycache__", ".adk")
    return shutil.copytree(AGENTS, folder, ignore=kept)


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with these settings and no others of Lapse's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LAPSE_", "SESSION_CLEANUP_"))
    }
    return kept | settings


def _is_measured(given: Mapping[str, str]) -> bool:
    """Return whether coverage measures: only what begins as a process of its own."""
    return "COVERAGE_PROCESS_CONFIG" in given


def lapse(
    folder: Path, *arguments: str, fresh: bool = False, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a folder.

    A `fresh` one imports everything itself, and may have workers.
    """
    command, given = [LAPSE, *arguments], environment(**settings)
    if fresh or _is_measured(given):
        return subprocess.run(
            command, cwd=folder, env=given, capture_output=True, text=True, timeout=60, check=False
        )
    with tempfile.TemporaryDirectory() as name:
        printed = [Path(name, one) for one in ("out", "err")]
        for file in printed:
            file.touch()
        process = Forked(arguments, cwd=folder, env=given, log=printed[0], errors=printed[1])
        try:
            status = process.wait(60)
        finally:
            process.kill()
        out, errors = (file.read_text(encoding="utf-8") for file in printed)
    return subprocess.CompletedProcess(command, status, out, errors)


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, where this process is."""
    return lapse(Path.cwd(), *arguments, **settings)


def eventually(condition: Callable[[], Any], *, within: float = 30.0) -> Any:
    """Return the first true result of `condition()`; fail when there is none in time."""
    end = time.monotonic() + within
    while not (result := condition()):
        assert time.monotonic() < end, f"it did not happen within {within:.0f} s"
        time.sleep(0.01)
    return result


def _command(given: dict[str, str]) -> list[str]:
    if BROKEN in given:
        return [sys.executable, str(Path(__file__).with_name("broken_lapse.py"))]
    if not prefixed.prefix:
        return [LAPSE]
    return [sys.executable, str(Path(prefixed.__file__)), prefixed.prefix]


def _started(
    folder: Path, log: Path, arguments: list[str], *, fresh: bool, **settings: str
) -> subprocess.Popen[bytes] | Forked:
    given = environment(**settings)
    log.touch()
    if not fresh and BROKEN not in given and not _is_measured(given):
        return Forked(arguments, cwd=folder, env=given, log=log, prefix=prefixed.prefix)
    with log.open("wb") as lines:
        return subprocess.Popen(
            [*_command(given), *arguments],
            cwd=folder,
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT,
        )


class Server:
    """A running server, a client of it, and its log.

    A `fresh` one imports everything itself, which takes seconds; others are forked.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        fresh: bool = False,
        starts_within: float = 60,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.log_file = folder / f"serve-{time.monotonic_ns()}.log"
        asked = ["serve", "--port", "0", *arguments]
        self.process = _started(folder, self.log_file, asked, fresh=fresh, **settings)
        try:
            self.origin = eventually(self._announced, within=starts_within)
            self.url = self.origin + prefixed.prefix
            self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
            eventually(self._answers, within=starts_within)
        except BaseException:
            self.kill()
            raise

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def _announced(self) -> str | None:
        assert self.process.poll() is None, f"it did not start:\n{self.log}"
        found = _URL.search(self.log)
        return found and found.group()

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"it did not start:\n{self.log}"
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/livez").status_code == 200
        return False

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()
        if hasattr(self, "client"):
            self.client.close()

    def stop(self) -> int:
        """Ask it to end and return its exit status; its client is closed only afterwards."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=20)
        finally:
            self.kill()

    # A user's requests.

    def path(self, session_id: str = "", app: str = "parrot", user: str = USER) -> str:
        return f"/apps/{app}/users/{user}/sessions" + (f"/{session_id}" if session_id else "")

    def create(self, app: str = "parrot", **body: Any) -> str:
        answer = self.client.post(self.path(app=app), json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    def short_lived(self, **body: Any) -> str:
        """Create a session and return its id once it has expired.

        Should it be had back, it has half an hour again.
        """
        session_id = self.create(**body, options={"ttl_minutes": 0.01})
        eventually(lambda: self.lifecycle(session_id)["status"] == "expired")
        with closing(sqlite3.connect(self.folder / "lapse.db")) as connection, connection:
            connection.execute(
                "UPDATE lapse_lobby SET ttl = 30 * 60 * 1000000 WHERE session_id = ?", (session_id,)
            )
        return session_id

    def lifecycle(self, session_id: str, app: str = "parrot") -> dict[str, Any]:
        answer = self.client.get(self.path(session_id, app) + "/lifecycle")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def run(self, session_id: str, text: str = "hello", **more: Any) -> httpx.Response:
        body = self.run_body(session_id, text) | more
        return self.client.post("/run", json=body)

    @staticmethod
    def run_body(session_id: str, text: str) -> dict[str, Any]:
        return {
            "appName": "parrot",
            "userId": USER,
            "sessionId": session_id,
            "newMessage": {"role": "user", "parts": [{"text": text}]},
        }

    def metric(self, sample: str) -> float:
        """Return the value of one sample, named with its labels; 0 where there is none yet."""
        for line in self.client.get("/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0


@contextlib.contextmanager
def serving(
    folder: Path, *arguments: str, fresh: bool = False, **settings: str
) -> Iterator[Server]:
    """Serve for the duration of the block."""
    server = Server(folder, *arguments, fresh=fresh, **settings)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        server.kill()
