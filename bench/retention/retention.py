"""Measures retention, and writes the results to a page.

On PostgreSQL: how fast sessions are archived beside a foreground of appends, and what that costs
the foreground; size, list and append before and after; the restore of a long session. On both
stores: what a sweep costs that finds nothing due.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.retention import filled
from bench.support import pg_server
from bench.support.figures import closed_loop, quantile
from lapse.core.documents import StateDelta
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause
from lapse.overview.store import OverviewStore
from lapse.retention import keeper, scan
from lapse.retention.archive import ArchiveStore
from lapse.retention.policy import parse_policy
from lapse.retention.store import RetentionStore
from lapse.store import store_from_url
from lapse.store.database import Database
from lapse.store.records import EventRecord, LastSeen, NewEvent
from lapse.store.sessions import Sessions

POLICY: Final = "[default]\nidle = '30d'\narchive = '3650d'\n"
CALLERS: Final = 8
LONG: Final = 1000
"""So many events the long session has."""

TABLES: Final = ("sessions", "events", "lapse_lobby", "lapse_archive")
_ANYTHING: Final = LastSeen(datetime(2100, 1, 1, tzinfo=UTC), None)


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured: how many sessions with how many events, and for how long."""

    sessions: int
    events: int
    seconds: float
    idle: tuple[int, ...]


def event(number: int) -> NewEvent:
    """Return a message."""
    name = f"{number}-{time.time_ns()}"
    record = EventRecord(name, "e-1", datetime.now(UTC), filled.EVENT)
    return NewEvent(record, StateDelta(), is_message=True, by_agent=False)


async def new_session(store: Sessions, name: str) -> SessionKey:
    """Make a used session."""
    key = SessionKey(filled.APP, "foreground", name)
    await store.create(key, state=StateDelta(), ttl=timedelta(minutes=30), metadata={})
    await store.append(key, event(0), _ANYTHING)
    return key


async def appends(database: Database, seconds: float) -> tuple[float, float]:
    """Append with several callers for a time; return the rate, and the median in milliseconds."""
    store, began = Sessions(database), time.time_ns()
    keys = [await new_session(store, f"{began}-{caller}") for caller in range(CALLERS)]

    async def one(caller: int, turn: int) -> bool:
        await store.append(keys[caller], event(turn), _ANYTHING)
        return True

    sample = await closed_loop(one, callers=CALLERS, seconds=seconds)
    assert not sample.errors, sample.errors
    return sample.rate, 1000 * sample.p50


async def times(work: Callable[[int], Awaitable[Any]], rounds: int) -> list[float]:
    """Return how many milliseconds each of several rounds took."""
    taken = []
    for number in range(rounds):
        began = time.perf_counter()
        await work(number)
        taken.append(1000 * (time.perf_counter() - began))
    return taken


@contextmanager
def sweeping(url: str, folder: Path) -> Iterator[None]:
    """Have a process of `lapse sweep --watch` archive by the policy."""
    environment = os.environ | {"LAPSE_RETENTION_FILE": str(folder / "policy.toml")}
    command = [str(Path(sys.executable).with_name("lapse")), "sweep", "--watch", "--store", url]
    with (folder / "sweep.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


class PostgresBench:
    """The measurements on PostgreSQL, in order, as lines of the page."""

    def __init__(self, server: pg_server.Server, folder: Path, options: Options) -> None:
        self._server, self._folder, self._options = server, folder, options
        self._url = server.make("retention")
        self._store = store_from_url(self._url)
        self.lines = ["| on PostgreSQL | before | meanwhile | after |", "|---|---|---|---|"]

    async def measure(self) -> None:
        options, store = self._options, self._store
        await store.open()
        await asyncio.to_thread(
            filled.fill_postgres,
            self._server,
            "retention",
            sessions=options.sessions,
            events=options.events,
        )
        size, listed = await self._size(), await self._list()
        await appends(store, min(2, options.seconds))  # warm
        alone, alone_ms = await appends(store, options.seconds)
        await RetentionStore(store).confirm_retention(parse_policy(POLICY), by="bench")
        confirmed = time.perf_counter()
        with sweeping(self._url, self._folder):
            await self._until(lambda archived: archived > 0)
            began, before = time.perf_counter(), await self._archived()
            beside, beside_ms = await appends(store, options.seconds)
            rate = (await self._archived() - before) / (time.perf_counter() - began)
            await self._until(lambda archived: archived >= options.sessions)
            whole = time.perf_counter() - confirmed
        await asyncio.to_thread(
            self._server.run, "retention", *(f"VACUUM (FULL, ANALYZE) {one}" for one in TABLES)
        )
        after, after_ms = await appends(store, options.seconds)
        self._row("appends/s of 8 callers", f"{alone:,.0f}", f"{beside:,.0f}", f"{after:,.0f}")
        self._row("append, median ms", f"{alone_ms:.2f}", f"{beside_ms:.2f}", f"{after_ms:.2f}")
        self._row("`list_sessions` of a user, ms", listed, "", await self._list())
        self._row("size, MB, after vacuum", size, "", await self._size())
        self._row("sessions archived/s", "", f"{rate:,.0f}", "")
        self._row("share that the foreground keeps", "", f"{beside / alone:.0%}", "")
        self._row("all are archived after, s", "", f"{whole:,.0f}", "")
        restores = await self._restores()
        self._row(
            f"restore of {LONG:,} events, median and longest ms",
            "",
            "",
            f"{median(restores):.1f}, {max(restores):.1f}",
        )
        await self._idle_row()
        await store.close()

    def _row(self, *cells: str) -> None:
        self.lines.append(f"| {' | '.join(cells)} |")
        print(self.lines[-1], flush=True)

    async def _idle_row(self) -> None:
        idle, page = await idle_times(self._store, self._folder)
        self._row("idle sweep, median ms; with a page of the scan", "", "", f"{idle}; {page}")

    async def _until(self, is_enough: Callable[[int], bool]) -> None:
        began = time.perf_counter()
        while not is_enough(await self._archived()):
            await asyncio.sleep(0.2)
            assert time.perf_counter() - began < 3600, (self._folder / "sweep.log").read_text()

    async def _archived(self) -> int:
        return int((await self._rows("SELECT count(*) FROM lapse_archive"))[0][0])

    async def _size(self) -> str:
        found = await self._rows(
            "SELECT sum(pg_total_relation_size(name::regclass)) "
            f"FROM unnest(ARRAY{list(TABLES)}) AS t (name)"
        )
        return f"{float(found[0][0]) / 1e6:,.1f}"

    async def _list(self) -> str:
        store = Sessions(self._store)
        taken = await times(lambda number: store.list(filled.APP, f"user-{number + 1}"), 50)
        return f"{median(taken):.2f}"

    async def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return await asyncio.to_thread(self._server.rows, "retention", query)

    async def _restores(self) -> list[float]:
        """Archive a long session and restore it, several times."""
        store = Sessions(self._store)
        key = await new_session(store, "long")
        for number in range(1, LONG):
            await store.append(key, event(number), _ANYTHING)
        taken = []
        for number in range(1, 21):
            later = self._store.at(datetime.now(UTC) + number * timedelta(days=40))
            done = await ArchiveStore(later).archive_sessions([key], parse_policy(POLICY))
            assert done.value.archived == 1
            began = time.perf_counter()
            await Sessions(later).resurrect(key, cause=Cause.REQUEST)
            taken.append(1000 * (time.perf_counter() - began))
        return taken


async def idle_times(database: Database, folder: Path) -> tuple[str, str]:
    """Return the median of a sweep that finds nothing due, without and with a page of the scan."""
    now = datetime.now(UTC)
    await RetentionStore(database).confirm_retention(parse_policy(POLICY), by="bench")
    while True:  # until the scan has been through all sessions, and nothing is due
        now += scan.LATER.pause
        own = keeper.RetentionKeeper(database.at(now), Feed(), folder / "policy.toml")
        if await own.step() >= keeper.EVERY:
            break

    async def with_page(number: int) -> None:
        moment = now + (number + 1) * scan.LATER.pause
        await keeper.RetentionKeeper(database.at(moment), Feed(), folder / "policy.toml").step()

    idle = await times(lambda _: own.step(), 200)
    page = await times(with_page, 200)
    return shown(idle), shown(page)


def shown(taken: list[float]) -> str:
    """Return the median and the 99th percentile."""
    return f"{median(taken):.2f} (p99 {quantile(taken, 0.99):.2f})"


async def sqlite_lines(folder: Path, sizes: tuple[int, ...]) -> list[str]:
    """Measure an idle sweep on SQLite at several sizes."""
    lines = ["| on SQLite, used sessions | idle sweep, median ms | with a page of the scan |"]
    lines.append("|---|---|---|")
    for size in sizes:
        path = folder / f"{size}.db"
        store = store_from_url(f"sqlite:///{path}")
        await store.open()
        await asyncio.to_thread(filled.fill_sqlite, path, sessions=size)
        await OverviewStore(store).recount()
        # What the scan would build is there: it has been through all sessions.
        await RetentionStore(store).confirm_retention(parse_policy(POLICY), by="bench")
        await asyncio.to_thread(_mark_scanned, path)
        idle, page = await idle_times(store, folder)
        lines.append(f"| {size:,} | {idle} | {page} |")
        print(lines[-1], flush=True)
        await store.close()
        path.unlink()
    return lines


def _mark_scanned(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE lapse_retention SET scanned_at = confirmed_at")


def head(options: Options, load: float) -> str:
    """Return how the page begins."""
    return (
        "# Retention, measured\n\n"
        f"{options.sessions:,} used sessions with {options.events} events each, a year old, as "
        "stock ADK leaves them; a policy of 30 days idle is confirmed, and one process of `lapse "
        f"sweep --watch` archives them. Its throttle: {keeper.BATCH} sessions at once, and then a "
        "rest as long as they took; the first scan reads "
        f"{scan.FIRST.sessions} sessions each {scan.FIRST.pause / timedelta(milliseconds=1):.0f} "
        "ms. An idle sweep looks every 2 seconds; "
        f"every {scan.LATER.pause.seconds} seconds it has a page of the scan. "
        f"The foreground is {CALLERS} callers that append without a pause.\n\n"
        f"Python {platform.python_version()}, lapse {version('lapse')}, {os.cpu_count()} cores, "
        f"load {load:.1f} before. `make bench-retention` repeats it.\n\n"
    )


def main() -> None:
    """Measure, and write the page if `--out` names it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--idle", type=int, nargs="*", default=[1_000, 1_000_000])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    logging.getLogger("lapse").setLevel(logging.ERROR)
    options = Options(given.sessions, given.events, given.seconds, tuple(given.idle))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, pg_server.running(Path(name)) as server:
        folder = Path(name)
        (folder / "policy.toml").write_text(POLICY)
        lines = asyncio.run(sqlite_lines(folder, options.idle))
        measured = PostgresBench(server, folder, options)
        asyncio.run(measured.measure())
        text = head(options, load) + "\n".join([*lines, "", *measured.lines, ""])
    if given.out:
        given.out.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
