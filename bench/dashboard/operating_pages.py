"""Measures the operators' pages over HTTP at a million records; writes operating_pages.md.

A real `lapse serve` on each store, one client on one connection. The times to the
first message come from what the TTL policy reads when the process starts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from bench.overview import operating_tables
from bench.support import pg_server
from bench.support.figures import quantile
from lapse.overview.store import OverviewStore
from lapse.store import store_from_url

TOKEN: Final = secrets.token_hex()
BEARER: Final = {"Authorization": f"Bearer {TOKEN}"}
PAGES: Final = (
    "/lapse/",
    "/lapse/?range=5w",
    "/lapse/live",
    "/lapse/sessions",
    "/lapse/sessions?status=expired&app=big",
    "/lapse/sessions?user=user-77",
    "/lapse/sessions?prefix=ab",
    "/lapse/sessions?q=user-77",
    "/lapse/api/stats",
    "/lapse/api/sessions?status=used&app=rare",
)
_OBSERVED: Final = """
INSERT INTO lapse_observations (app_name, segment, outcome, user_id, created_at, observed_at)
"""
_SQLITE: Final = f"""
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :stored)
{_OBSERVED} SELECT 'big', '', CASE i % 3 WHEN 0 THEN 'used' ELSE 'unused' END,
  'user-' || (i % 400000),
  :now - 86400000000 - i * 1728000, :now - 86400000000 - i * 1728000 + (i % 900) * 1000000 FROM n
"""
_POSTGRES: Final = f"""
{_OBSERVED} SELECT 'big', '', CASE i % 3 WHEN 0 THEN 'used' ELSE 'unused' END,
  'user-' || (i % 400000),
  born, born + (i % 900) * interval '1 s'
FROM (
  SELECT i, now() - interval '1 day' - i * interval '1728 ms' AS born
  FROM generate_series(1, :stored) AS i
) AS made
"""

_APPS: Final = 20_000
"""So many made-up names of apps are among the records: any user can make them."""

_NAMED: Final = f"""
UPDATE lapse_lobby SET app_name = 'made-up-' || n FROM (
  SELECT app_name AS a, user_id AS u, session_id AS s, row_number() OVER () AS n
  FROM lapse_lobby WHERE status = 'expired' LIMIT {_APPS}
) AS named
WHERE app_name = a AND user_id = u AND session_id = s
"""
_COUNTED: Final = """
INSERT INTO lapse_counted (at, app_name, kind, sessions)
SELECT {at}, app_name, 'created', 1 FROM lapse_lobby WHERE app_name LIKE 'made-up-%'
"""
_COUNTED_SQLITE: Final = _COUNTED.format(at=":now / 3600000000 * 3600000000 - 3600000000 * 5")
_COUNTED_POSTGRES: Final = _COUNTED.format(at="date_bin('1 hour', now(), 'epoch') - interval '5 h'")


@contextmanager
def serving(url: str, folder: Path) -> Iterator[str]:
    """Serve a store, with the dashboard and without a sweeper; yield the URL."""
    log_file = folder / "serve.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lapse.cli", "serve", "--port", "0", "--store", url],
            cwd=folder,
            env={**os.environ, "LAPSE_ADMIN_TOKEN": TOKEN, "LAPSE_SWEEPER": "off"},
            stderr=log,
        )
    try:
        while not (found := re.search(r"on (http://\S+)", log_file.read_text("utf-8"))):
            assert process.poll() is None, log_file.read_text("utf-8")
            time.sleep(0.05)
        yield found[1]
    finally:
        process.terminate()
        process.wait()


def measured(url: str, rounds: int) -> dict[str, list[float]]:
    """Return how many milliseconds each page took, by its path."""
    times = dict[str, list[float]]()

    def take(name: str, path: str) -> None:
        began = time.perf_counter()
        answer = client.get(path, headers=BEARER)
        taken = 1000 * (time.perf_counter() - began)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:200])
        times.setdefault(name, []).append(taken)

    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        client.post("/lapse/login", data={"token": TOKEN}, headers={"Origin": url})
        client.get("/lapse/sessions")
        take("`/lapse/`, the first of a process", "/lapse/")
        while 'class="plotted curve"' not in client.get("/lapse/").text:
            time.sleep(0.5)  # the policy reads what was observed, soon after the start
        for path in PAGES:
            for _ in range(rounds):
                take(f"`{path}`", path)
    return times


def section(name: str, times: dict[str, list[float]]) -> str:
    """Return a store's part of the page."""
    lines = [f"## {name}", "", "| | p50 ms | p99 ms | longest ms |", "|---|---|---|---|"]
    for path, taken in times.items():
        figures = (quantile(taken, 0.5), quantile(taken, 0.99), max(taken))
        lines.append(f"| {path} | {' | '.join(f'{one:.1f}' for one in figures)} |")
    return "\n".join([*lines, ""])


async def prepared(url: str, *, recount: bool) -> None:
    """Open a store once, and set its levels."""
    store = store_from_url(url)
    await store.open()
    if recount:
        await OverviewStore(store).recount()
    await store.close()


def main() -> None:
    """Measure both stores; only a full run is written down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50,000 records")
    quick = parser.parse_args().quick
    stored, rounds, load = (50_000, 5, 0.0) if quick else (1_000_000, 100, os.getloadavg()[0])
    parts = []
    with tempfile.TemporaryDirectory() as name, pg_server.running(Path(name)) as server:
        folder = Path(name)
        path, now = folder / "lapse.db", time.time_ns() // 1000
        operating_tables.fill_sqlite(path, stored, now)
        with sqlite3.connect(path) as connection:
            connection.execute(_SQLITE, {"stored": stored // 10, "now": now})
            connection.execute(_NAMED)
            connection.execute(_COUNTED_SQLITE, {"now": now})
        connection.close()
        asyncio.run(prepared(f"sqlite:///{path}", recount=True))
        with serving(f"sqlite:///{path}", folder) as url:
            parts.append(section("SQLite", measured(url, rounds)))
        print(parts[-1], flush=True)
        place = server.make("operating")
        asyncio.run(prepared(place, recount=False))
        operating_tables.fill_postgres(server, "operating", stored, now)
        observed = _POSTGRES.replace(":stored", str(stored // 10))
        server.run("operating", observed, _NAMED, _COUNTED_POSTGRES)
        for table in ("lapse_observations", "lapse_lobby", "lapse_counted"):
            server.run("operating", f"VACUUM (ANALYZE) {table}")
        asyncio.run(prepared(place, recount=True))
        with serving(place, folder) as url:
            parts.append(section(pg_server.settings(server), measured(url, rounds)))
        print(parts[-1], flush=True)
    if not quick:
        head = (
            "# The operators' pages, measured\n\n"
            f"{stored:,} records as in [operating.md](../overview/operating.md), {_APPS:,} of "
            "them of an app of their own, and "
            f"{stored // 10:,} observed "
            f"sessions of two days. Over HTTP, {rounds} requests each, one client. Python "
            f"{platform.python_version()}, {os.cpu_count()} cores, load {load:.1f} before. "
            "`.venv/bin/python -m bench.dashboard.operating_pages` repeats it.\n\n"
        )
        Path(__file__).with_name("operating_pages.md").write_text(head + "\n".join(parts), "utf-8")


if __name__ == "__main__":
    main()
