"""Measures what operators look at, at a million records, and writes the results to operating.md.

What a page costs the store: `overview`, and `find` with every combination of filters, its first
page and one from deep inside. Every call of `ASKED` is one row of the table.
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
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import operating_tables
import pg_server
from children import BENCH
from figures import quantile

from lapse.lifecycle import SessionKey, Status
from lapse.operating import Query
from lapse.paging import Place, Way
from lapse.store import Store
from lapse.stores import store_from_url

GOAL: Final = 10.0
"""Milliseconds of the store's time for a page, p99."""

DAY: Final = timedelta(days=1)
STATUSES: Final = (None, Status.WAITING, Status.EXPIRED, Status.USED)

Call = Callable[[], Awaitable[Any]]


async def measure(
    store: Store, call: Callable[[int], Call], rounds: int
) -> tuple[list[float], Any]:
    """Return how long each call took, in milliseconds, and the last result."""
    times, result = [], None
    for number in range(rounds):
        ask = call(number)
        began = time.perf_counter()
        result = await ask()
        times.append(1000 * (time.perf_counter() - began))
    return times, result


def queries(keys: Sequence[SessionKey]) -> list[tuple[str, Callable[[int], Query]]]:
    """Return every combination of filters, as what asks for it with a session of one's own."""
    found = []
    for status, app, user, prefix in itertools.product(
        STATUSES, (None, *operating_tables.APPS), (False, True), (0, 1, 8)
    ):

        def query(
            number: int,
            status: Status | None = status,
            app: str | None = app,
            user: bool = user,
            prefix: int = prefix,
        ) -> Query:
            key = keys[number % len(keys)]
            return Query(
                status=status,
                app_name=app,
                user_id=key.user_id if user else None,
                prefix=key.session_id[:prefix] or None,
            )

        names = [str(status)] if status else []
        names += [f"app {app}"] if app else []
        names += ["user"] if user else []
        names += [f"prefix of {prefix}"] if prefix else []
        found.append((", ".join(names) or "none", query))
    return found


async def rows(store: Store, rounds: int) -> dict[str, tuple[list[float], str]]:
    """Return, by what was asked, how long it took, and a word about it."""
    found = dict[str, tuple[list[float], str]]()
    times, overview = await measure(store, lambda _: lambda: store.overview(since=DAY), 5 * rounds)
    found["`overview` of a day"] = times, f"{len(overview.counts)} numbers"
    times, _ = await measure(store, lambda _: store.tallies, 5 * rounds)
    found["`tallies`"] = times, "levels of 3 apps"
    times, _ = await measure(store, lambda _: lambda: store.dues(most=1001), 5 * rounds)
    found["`dues`"] = times, "before each sweep"
    keys = await sample(store)
    combined = queries(keys)
    for deep in (False, True):
        by_way: dict[Way, list[tuple[float, list[float], str]]] = {}
        for name, query in combined:

            def call(number: int, query: Callable[[int], Query] = query) -> Call:
                asked = query(number)
                if deep:
                    asked = begun(asked, keys[-1 - number % len(keys)], store_now)
                return lambda: store.find(asked)

            store_now = int(time.time() * 1_000_000)
            times, _ = await measure(store, call, rounds)
            by_way.setdefault(Way.of(query(0)), []).append((quantile(times, 0.99), times, name))
        for way, measured in sorted(by_way.items()):
            _, _, worst = max(measured)
            label = f"`find` {way}, {'deep' if deep else 'first'} pages"
            together = [one for _, times, _ in measured for one in times]
            found[label] = together, f"{len(measured)} combinations; slowest: {worst}"
    return found


def begun(query: Query, key: SessionKey, now: int) -> Query:
    """Return a query that goes on deep inside."""
    moment = {Way.WAITING: now + 900_000_000, Way.EXPIRED: now + 43_200_000_000}
    if query.user_id is not None:
        key = SessionKey(query.app_name or key.app_name, query.user_id, "8")
    if query.prefix:
        key = SessionKey(key.app_name, key.user_id, query.prefix + "8")
    after = Place(key, moment.get(Way.of(query), 0)).text(query)
    return Query(query.status, query.app_name, query.user_id, query.prefix, after, query.size)


async def sample(store: Store) -> list[SessionKey]:
    """Return sessions from everywhere."""
    keys = []
    for _ in range(40):
        begin = "".join(random.choices("0123456789abcdef", k=3))
        keys += [record.key for record in (await store.find(Query(prefix=begin, size=5))).records]
    random.shuffle(keys)
    return keys


def section(name: str, found: dict[str, tuple[list[float], str]]) -> str:
    """Return a store's part of the page."""
    lines = [f"## {name}", "", "| | p50 ms | p99 ms | longest ms | |", "|---|---|---|---|---|"]
    for asked, (times, word) in found.items():
        p99 = quantile(times, 0.99)
        mark = "" if p99 < GOAL else f"**over {GOAL:.0f}**; "
        lines.append(
            f"| {asked} | {quantile(times, 0.5):.2f} | {p99:.2f} | {max(times):.2f} | {mark}{word} |"
        )
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
        await store.recount()
        await rows(store, 3)
        return await rows(store, rounds)
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
        (BENCH / "operating.md").write_text(head(stored, load) + "\n".join(parts), "utf-8")


async def _prepare(url: str) -> None:
    store = store_from_url(url)
    await store.open()
    await store.close()


if __name__ == "__main__":
    main()
