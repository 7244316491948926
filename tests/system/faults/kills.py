"""A process that writes to an SQLite file is killed with no warning; then its file is read."""

import asyncio
import random
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from history import History, stored_at
from parts import store_with_parts

WRITER = Path(__file__).with_name("writer.py")
KILLS = 2
"""Kills of one seed, one after the other on the same file."""

MOST_LINES = 240
FAR = datetime(2100, 1, 1, tzinfo=UTC)


async def write_until_killed(url, turn, lines, *broken):
    """Run a writer, kill it once it has printed so many lines, and return all it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, WRITER, url, str(turn), *broken, stdout=asyncio.subprocess.PIPE
    )
    printed = [await process.stdout.readline() for _ in range(lines)]
    process.kill()
    printed.append(await process.stdout.read())
    await process.wait()
    whole = b"".join(printed).decode().rpartition("\n")[0]
    return [line.split() for line in whole.splitlines()]


async def sweep_for_ever(store):
    """Expire and purge everything that ever falls due, twice; nothing may be left to come."""
    for days in (0, 1, 2):
        at = store.at(FAR + timedelta(days=days))
        while (await at.expire_due(1000)).value:
            pass
        while (await at.purge_due(1000)).value:
            pass
    assert await store.at(FAR + timedelta(days=3)).time_to_next() is None


async def play(seed, folder, broken=None):
    """Kill the writers of a seed; return how many, and raise what is wrong with their file."""
    chance, path, told = random.Random(seed), folder / f"kill-{seed}.db", History()
    url = f"sqlite:///{path}"
    for turn in range(KILLS):
        lines = chance.randint(1, MOST_LINES)
        told.add(await write_until_killed(url, turn, lines, *([broken] if broken else [])))
        store = store_with_parts(url)
        await store.open()  # what was left in the log is read back
        faults = told.faults(stored_at(url))
        if turn == KILLS - 1:
            await sweep_for_ever(store)
            faults += told.faults(stored_at(url), purged=True)
        await store.close()
        assert not faults, "\n".join(faults[:9])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    path.unlink()
    return KILLS
