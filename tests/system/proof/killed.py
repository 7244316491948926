"""A real `lapse serve` on SQLite is killed with no warning, and callers ask it over HTTP.

With workers, one of them is killed, or their parent, or all of them at once.
"""

import asyncio
import os
import random
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from callers import LONG, Callers
from kills import sweep_for_ever

from history import stored_at
from parts import store_with_parts
from serving import BROKEN, Server, copied_agents, eventually
from worker_clients import pid_of

KILLS = {1: 3, 2: 2}
"""Kills of one seed by the number of workers, one after the other on the same file."""

MOST = 40
"""Answers between two kills, at most."""

BREAKS = {"early": "answer_early", "by halves": "commit_by_halves"}


async def play(seed, folder, broken=None, *, workers=1):
    """Kill a server as often as a seed says; return how often, and raise what is wrong."""
    chance, path = random.Random(seed), folder / "lapse.db"
    url, agents = f"sqlite:///{path}", str(copied_agents(folder / "agents"))
    asked = [agents, "--store", url, *(["--workers", str(workers)] if workers > 1 else [])]
    settings = {BROKEN: BREAKS[broken]} if broken else {}
    callers = Callers(seed)

    async def started():
        server = await asyncio.to_thread(
            Server, folder, *asked, fresh=workers > 1, starts_within=LONG, **settings
        )
        callers.moved(server.url)
        return server

    server, living = await started(), set()
    callers.start()
    try:
        for _ in range(KILLS[workers]):
            await callers.more(chance.randint(1, MOST))
            await asyncio.sleep(chance.random() / 50)
            living |= kill(server, chance, workers)
            if server.process.poll() is not None:
                server.kill()
                server = await started()
        await callers.more(MOST // 4)
    finally:
        told = await callers.stop()
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(end, living)
    await check(url, told, callers.faults)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    return KILLS[workers]


def kill(server, chance, workers):
    """Kill a server, or a part of it; return the workers that lost their parent and may live."""
    parent = server.process.pid
    children = {pid for n in range(1, workers + 1) if (pid := pid_of(server, n))}
    victim = chance.choice(("worker", "parent", "all")) if workers > 1 else "parent"
    if victim == "worker" and children:
        os.kill(chance.choice(sorted(children)), signal.SIGKILL)
        return set()
    os.kill(parent, signal.SIGKILL)
    server.process.wait()
    if victim == "all":
        end(children)
    return children


def end(pids):
    """Kill workers that were left behind, and return once they are gone."""
    for pid in pids:
        if b"worker" in _title(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: b"worker" not in _title(pid))


def _title(pid):
    """Return the title of a process; nothing if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


async def check(url, told, faults):
    """Compare what a database holds with a history, now and when all that ever ends has ended."""
    store = store_with_parts(url)
    await store.open()
    found = [*faults, *told.faults(stored_at(url, texts=True))]
    await sweep_for_ever(store)
    found += told.faults(stored_at(url, texts=True), purged=True)
    await store.close()
    assert not found, "\n".join(found[:9])
