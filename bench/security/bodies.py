"""Looks for the body within bounds that makes the server's event loop stand still the longest.

    python -m bench.security.bodies [--quick] [--out FILE]

It makes bodies of four kinds: text that is slow to read, documents that fill each list and object
which a route's schema has with as many small things as the bounds let through, documents that are
stored again and again and then read, and bodies that say they are something else. Of the second
kind there are thousands: those are tried on pydantic first, and the slowest are sent.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.security.cases import (
    SESSIONS,
    Case,
    Request,
    disguised,
    slowest_documents,
    stored,
    texts,
)

GOAL: Final = 0.1
ROOT: Final = Path(__file__).parents[2]
AGENTS: Final = Path(__file__).parents[1] / "support" / "agents"
_URL: Final = re.compile(r"http://127\.0\.0\.1:(\d+)")


def main() -> None:
    """Search, print the worst, and write them down if it was a whole search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look at it in a minute")
    parser.add_argument("--out", type=Path, help="where to write the table")
    options = parser.parse_args()
    sent = 8 if options.quick else 60
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, beating(Path(folder)) as port:
        client = Client(port)
        base = max(client.stall(Case("nothing", [])) for _ in range(20))
        cases = [*texts(), *stored(), *disguised(), *slowest_documents(sent, quick=options.quick)]
        found = []
        for case in cases:
            found.append((client.stall(case), client.status, case.name))
            print(f"{found[-1][0] * 1e3:6.0f} ms  {client.status}  {case.name}", file=sys.stderr)
    found.sort(reverse=True)
    text = report(found, base=base, load=load)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


@contextmanager
def beating(folder: Path) -> Iterator[int]:
    """Serve the echo agent with a heart; yield the port."""
    off = dict.fromkeys(
        (
            "LAPSE_CREATES_PER_MINUTE_PER_USER",
            "LAPSE_CREATES_PER_MINUTE_PER_ADDRESS",
            "LAPSE_WAITING_PER_USER",
            "LAPSE_WAITING_PER_ADDRESS",
        ),
        "0",
    )
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | off | {"PYTHONPATH": path}
    log = folder / "serve.log"
    command = [sys.executable, "-m", "bench.security.beating", "serve", str(AGENTS), "--port", "0"]
    with log.open("wb") as lines:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=lines, stderr=subprocess.STDOUT
        )
    try:
        while not (found := _URL.search(log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield int(found.group(1))
    finally:
        process.terminate()
        process.wait()


class Client:
    """Asks the server, on a new connection each time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.status = 0
        self._ask(Request("GET", "/bench/stall", b""))

    def stall(self, case: Case) -> float:
        """Send a case in a new session; return how long the loop stood still at most."""
        session = json.loads(self._ask(Request("POST", SESSIONS, b"{}")))["id"]
        self._ask(Request("GET", "/bench/stall", b""))
        self.status = 0
        for one in case.requests:
            body = one.body.replace(b"{id}", session.encode(), 1)
            self._ask(one._replace(path=one.path.replace("{id}", session), body=body))
        status = self.status
        stall = float(self._ask(Request("GET", "/bench/stall", b"")))
        self.status = status
        return stall

    def _ask(self, one: Request) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            with suppress(BrokenPipeError):  # it was answered before all of it was sent
                connection.request(one.method, one.path, one.body or None, one.headers)
            answer = connection.getresponse()
            self.status = answer.status
            return answer.read()
        finally:
            connection.close()


def report(found: list[tuple[float, int, str]], *, base: float, load: float) -> str:
    """Return what was found as Markdown."""
    longest = found[0][0]
    kept = "met" if longest <= GOAL else "MISSED"
    lines = [
        "# The worst body, measured",
        "",
        (
            f"By `bench/security/bodies.py` with Lapse {version('lapse')}, google-adk "
            f"{version('google-adk')}, CPython {platform.python_version()}, {os.cpu_count()} "
            f"cores, load {load:.1f}, SQLite."
        ),
        "",
        (
            f"{len(found):,} bodies were sent, each within the default bounds or just beyond. The "
            f"event loop stood still for {longest * 1e3:.0f} ms at most (with nothing to do: "
            f"{base * 1e3:.0f} ms); the goal, {GOAL * 1e3:.0f} ms, is {kept}."
        ),
        "",
        "| stood still, ms | answer | body |",
        "|--:|--:|---|",
    ]
    lines += [f"| {stall * 1e3:.0f} | {status} | {name} |" for stall, status, name in found[:25]]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
