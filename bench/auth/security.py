"""Measures whether time tells foreign sessions from unknown ones, and what a token costs.

Writes the results to security.md; see there.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_BIN: Final = Path(sys.executable).parent
_URL: Final = re.compile(r"http://127\.0\.0\.1:(\d+)")
_SECRET: Final = "a secret of sixty-four bytes, which is what HS512 would have, too"
_ISSUER: Final = "https://issuer.test/"
GOAL: Final = 0.05


def main() -> None:
    """Measure; only a full run is written down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look at it in seconds")
    quick = parser.parse_args().quick
    ids, requests = (500, 300) if quick else (10_000, 3_000)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = enumerated(Path(folder), ids)
        costs = {name: cost(Path(folder), name, requests) for name in SERVERS}
    text = report(found, costs, ids=ids, requests=requests, load=load)
    print(text)
    if not quick:
        Path(__file__).with_name("security.md").write_text(text, encoding="utf-8")


_UNLIMITED = {
    f"LAPSE_{name}": "0"
    for name in (
        "CREATES_PER_MINUTE_PER_USER",
        "CREATES_PER_MINUTE_PER_ADDRESS",
        "WAITING_PER_USER",
        "WAITING_PER_ADDRESS",
    )
}


class Issuer:
    """Signs tokens of one algorithm."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.private = self.given = _SECRET
        if algorithm != "HS256":
            is_curve = algorithm.startswith("ES")
            self.private = (
                ec.generate_private_key(ec.SECP256R1())
                if is_curve
                else rsa.generate_private_key(65537, 2048)
            )
            public = self.private.public_key()
            self.given = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            self.given = self.given.decode()

    @property
    def settings(self) -> dict[str, str]:
        return {
            "LAPSE_AUTH": "jwt",
            "LAPSE_JWT_KEY": self.given,
            "LAPSE_JWT_ALGORITHMS": self.algorithm,
            "LAPSE_JWT_ISSUER": _ISSUER,
            "LAPSE_JWT_AUDIENCE": "bench",
            **_UNLIMITED,
        }

    def headers(self, user: str) -> dict[str, str]:
        claims = {"sub": user, "iss": _ISSUER, "aud": "bench", "exp": time.time() + 3600}
        return {"Authorization": f"Bearer {jwt.encode(claims, self.private, self.algorithm)}"}


class Proxy:
    """A proxy on this machine that names the user."""

    settings: Final = {"LAPSE_AUTH": "header", "LAPSE_AUTH_PROXIES": "127.0.0.1", **_UNLIMITED}

    def headers(self, user: str) -> dict[str, str]:
        return {"X-Forwarded-User": user}


class Nobody:
    """Nobody is authenticated."""

    settings: Final = {"LAPSE_AUTH": "none"}

    def headers(self, user: str) -> dict[str, str]:  # noqa: ARG002 - of nobody
        return {}


SERVERS: Final = {
    "none": Nobody,
    "header": Proxy,
    "jwt, HS256": lambda: Issuer("HS256"),
    "jwt, ES256": lambda: Issuer("ES256"),
    "jwt, RS256": lambda: Issuer("RS256"),
}


@contextmanager
def lapse(folder: Path, **settings: str) -> Iterator[int]:
    """Serve the demo's agent; yield the port."""
    log = folder / f"{uuid.uuid4()}.log"
    environment = os.environ | settings | {"LAPSE_STORE_URL": f"sqlite:///{log}.db"}
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [_BIN / "lapse", "serve", "--port", "0"], env=environment, stdout=lines, stderr=lines
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
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(self, method: str, path: str, headers: dict[str, str], body: str = "") -> bytes:
        given = headers | {"Content-Type": "application/json"}
        self._connection.request(method, path, body or None, given)
        return self._connection.getresponse().read()

    def timed(self, path: str, headers: dict[str, str]) -> float:
        began = time.perf_counter()
        self.ask("GET", path, headers)
        return time.perf_counter() - began


def enumerated(folder: Path, ids: int) -> dict[str, list[float]]:
    """Ask for `ids` sessions of each kind, in a random order; return how long each took."""
    issuer = Issuer("HS256")
    with lapse(folder, **issuer.settings) as port:
        client = Client(port)
        ann, bob = issuer.headers("ann"), issuer.headers("bob")
        sessions = "/apps/concierge/users/{}/sessions"
        existing = [
            json.loads(client.ask("POST", sessions.format("ann"), ann, "{}"))["id"]
            for _ in range(min(ids, 1_000))
        ]
        kinds = {
            "foreign, exists": ("ann", existing),
            "foreign, unknown": ("ann", None),
            "own path, exists elsewhere": ("bob", existing),
            "own path, unknown": ("bob", None),
        }
        order = [kind for kind in kinds for _ in range(ids)]
        random.Random(7).shuffle(order)
        took: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number, kind in enumerate(order):
            owner, known = kinds[kind]
            one = random.choice(known) if known else str(uuid.uuid4())
            seconds = client.timed(f"{sessions.format(owner)}/{one}", bob)
            if number >= ids // 10:  # warm by then
                took[kind].append(seconds)
    return took


def cost(folder: Path, name: str, requests: int) -> list[float]:
    """Read one's own waiting session again and again."""
    caller = SERVERS[name]()
    with lapse(folder, **caller.settings) as port:
        client, headers = Client(port), caller.headers("ann")
        path = "/apps/concierge/users/ann/sessions"
        one = json.loads(client.ask("POST", path, headers, "{}"))["id"]
        took = [client.timed(f"{path}/{one}", headers) for _ in range(requests + 200)]
    return took[200:]


def report(
    found: dict[str, list[float]],
    costs: dict[str, list[float]],
    *,
    ids: int,
    requests: int,
    load: float,
) -> str:
    """Return what was measured as Markdown."""
    base = statistics.median(found["own path, unknown"])
    told = statistics.median(found["foreign, exists"]) / statistics.median(
        found["foreign, unknown"]
    )
    own = statistics.median(found["own path, exists elsewhere"]) / base
    kept = all(abs(ratio - 1) <= GOAL for ratio in (told, own))
    lines = [
        "# Security, measured",
        "",
        (
            f"By `bench/auth/security.py` with Lapse {version('lapse')}, joserfc "
            f"{version('joserfc')}, CPython {platform.python_version()}, {os.cpu_count()} cores, "
            f"load {load:.1f}, SQLite."
        ),
        "",
        "## Does time tell whether a session exists?",
        "",
        (
            f"One user asks for {ids:,} ids of each kind, in random order, all answered 404 with "
            "the same bytes."
        ),
        "",
        "| `GET` of a session | median, µs | p95, µs | to own unknown |",
        "|---|--:|--:|--:|",
    ]
    for kind, took in found.items():
        p95 = statistics.quantiles(took, n=20)[-1]
        median = statistics.median(took)
        lines.append(f"| {kind} | {median * 1e6:.0f} | {p95 * 1e6:.0f} | {median / base:.3f} |")
    lines += [
        "",
        (
            f"Existing to unknown: {told:.3f} under a foreign path, {own:.3f} under one's own; "
            f"the goal, within {GOAL:.0%}, is {'met' if kept else 'MISSED'}."
        ),
        "",
        "## What does authentication cost?",
        "",
        f"{requests:,} reads of one's own waiting session on one connection.",
        "",
        "| `LAPSE_AUTH` | median, µs | over none, µs |",
        "|---|--:|--:|",
    ]
    free = statistics.median(costs["none"])
    for name, took in costs.items():
        median = statistics.median(took)
        lines.append(f"| {name} | {median * 1e6:.0f} | {(median - free) * 1e6:+.0f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
