"""Measures what operators look at, at a million records, and writes the results to operating.md.

What a page costs the store: `overview`, and `find` with every combination of filters, its first
page and one from deep inside.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import platform
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.overview import operating_tables
from bench.support import pg_server
from bench.support.figures import quantile
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from lapse.overview.find import PageCursor, Way
from lapse.overview.store import OverviewStore, Query
from lapse.store import store_from_url
from lapse.store.database import Database
from lapse.sweep.store import SweepStore

GOAL: Final = 10.0
"""Milliseconds of the store's time for a page, p99."""

DAY: Final = timedelta(days=1)
STATUSES: Final = (None, Status.WAITING, Status.EXPIRED, Status.USED)

Ask = Callable[[int], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which filters a query has; what they say comes from a session."""

    status: Status | None
    app: str | None
    user: bool
    prefix: int

    @property
    def name(self) -> str:
        names = [str(self.status)] if self.status else []
        names += [f"app {self.app}"] if self.app else []
        names += ["user"] if self.user else []
        names += [f"prefix of {self.prefix}"] if self.prefix else []
        return ", ".join(names) or "none"

    def query(self, key: SessionKey) -> Query:
        """Return the query for a session's user and id."""
        return Query(
            status=self.status,
            app_name=self.app,
            user_id=key.user_id if self.user else None,
            prefix=key.session_id[: self.prefix] or None,
        )

    def deep(self, key: SessionKey) -> Query:
        """Return a query that goes on deep inside."""
        now = time.time_ns() // 1000
        moment = {Way.WAITING: now + 900_000_000, Way.EXPIRED: now + 43_200_000_000}
        query = self.query(key)
        if self.user:
            key = SessionKey(self.app or key.app_name, key.user_id, "8")
        if self.prefix:
            key = SessionKey(key.app_name, key.user_id, f"{query.prefix}8")
        cursor = PageCursor(key, moment.get(Way.of(query), 0))
        return replace(query, after=cursor.text(query))


FILTERS: Final = [
    Filters(*one)
    for one in itertools.product(STATUSES, (None, *operating_tables.APPS), (False, True), (0, 1, 8))
]


async def timed(ask: Ask, rounds: int) -> tuple[list[float], Any]:
    """Return how long each call took, in milliseconds, and the last result."""
    times, result = [], None
    for number in range(rounds):
        began = time.perf_counter()
        result = await ask(number)
        times.append(1000 * (time.perf_counter() - began))
    return times, result


async def measured(store: Database, rounds: int) -> dict[str, tuple[list[float], str]]:
    """Return, for each query, the times in milliseconds and a remark."""
    found = dict[str, tuple[list[float], str]]()
    times, overview = await timed(lambda _: OverviewStore(store).overview(since=DAY), 5 * rounds)
    found["`overview` of a day"] = times, f"{len(overview.counts)} numbers"
    times, _ = await timed(lambda _: SweepStore(store).dues(most=1001), 5 * rounds)
    found["`dues`"] = times, "before each sweep"
    keys = await sample(store)
    for depth, of_key in (("first", Filters.query), ("deep", Filters.deep)):
        by_way: dict[Way, list[tuple[float, list[float], str]]] = {}
        for filters in FILTERS:
            asked = [of_key(filters, key) for key in random.choices(keys, k=rounds)]
            times, _ = await timed(
                lambda number, asked=asked: OverviewStore(store).find(asked[number]), rounds
            )
            taken = (quantile(times, 0.99), times, filters.name)
            by_way.setdefault(Way.of(asked[0]), []).append(taken)
        for way, taken in sorted(by_way.items()):
            p99, _, slowest = max(taken)
            together = [one for _, times, _ in taken for one in times]
            word = f"{len(taken)} combinations; slowest: {slowest} ({p99:.1f})"
            found[f"`find` {way}, {depth} pages"] = together, word
    return found


async def sample(store: Database) -> list[SessionKey]:
    """Return sessions from everywhere."""
    keys = []
    for _ in range(40):
        begin = "".join(random.choices("0123456789abcdef", k=3))
        keys += [
            record.key
            for record in (await OverviewStore(store).find(Query(prefix=begin, size=5))).records
        ]
    random.shuffle(keys)
    return keys


def section(name: str, found: dict[str, tuple[list[float], str]]) -> str:
    """Return a store's part of the page."""
    lines = [f"## {name}", "", "| | p50 ms | p99 ms | longest ms | |", "|---|---|---|---|---|"]
    for asked, (times, word) in found.items():
        p99 = quantile(times, 0.99)
        mark = "" if p99 < GOAL else f"**over {GOAL:.0f}**; "
        figures = (quantile(times, 0.5), p99, max(times))
        lines.append(f"| {asked} | {' | '.join(f'{one:.2f}' for one in figures)} | {mark}{word} |")
    return "\n".join([*lines, ""])


def head(stored: int, load: float) -> str:
    """Return how the page begins."""
    return (
        "# What operators look at, measured\n\n"
        f"{stored:,} records: 5 % waiting, 35 % expired, 60 % used; three apps of 89.9, 10 and "
        f"0.1 %; {operating_tables.USERS:,} users; the numbers of five weeks. The store's time for "
        f"one page of 50, the driver and the records in Python included. Goal: {GOAL:.0f} ms at "
        "p99.\n\n"
        f"Python {platform.python_version()}, lapse {version('lapse')}, {os.cpu_count()} cores, "
        f"load {load:.1f} before. `make bench-operating` repeats it.\n\n"
    )


async def of(url: str, rounds: int) -> dict[str, tuple[list[float], str]]:
    """Measure one store."""
    store = store_from_url(url)
    await store.open()
    try:
        await OverviewStore(store).recount()
        await measured(store, 3)
        return await measured(store, rounds)
    finally:
        await store.close()


def main() -> None:
    """Measure both stores; only a full run is written down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50,000 records")
    quick = parser.parse_args().quick
    stored, rounds, load = (50_000, 5, 0.0) if quick else (1_000_000, 40, os.getloadavg()[0])
    parts = []
    with tempfile.TemporaryDirectory() as folder, pg_server.running(Path(folder)) as server:
        path = Path(folder) / "lapse.db"
        now = time.time_ns() // 1000
        operating_tables.fill_sqlite(path, stored, now)
        parts.append(section("SQLite", asyncio.run(of(f"sqlite:///{path}", rounds))))
        print(parts[-1], flush=True)
        url = server.make("operating")
        asyncio.run(_prepare(url))
        operating_tables.fill_postgres(server, "operating", stored, now)
        parts.append(section(pg_server.settings(server), asyncio.run(of(url, rounds))))
        print(parts[-1], flush=True)
    if not quick:
        Path(__file__).with_name("operating.md").write_text(
            head(stored, load) + "\n".join(parts), "utf-8"
        )


async def _prepare(url: str) -> None:
    store = store_from_url(url)
    await store.open()
    await store.close()


if __name__ == "__main__":
    main()
