"""Histories on a disk that is recorded, and power cuts at random points of them."""

import shutil
import sqlite3
from contextlib import closing, nullcontext, suppress
from random import Random

from disk import Disk, Mark, recorded

from backends import NO_STATE, T0, TTL, create, key, message, note
from breaks import unflushed
from lapse.core.errors import LapseError
from lapse.core.lifecycle import Cause
from lapse.runs.store import RunStatus
from parts import store_with_parts

FILES = ("lapse.db", "lapse.db-wal")
CALLS = 150
SESSIONS = 12
CUTS = 25
"""Power cuts of one seed."""

OFTEN_COPIED = "PRAGMA wal_autocheckpoint = 100"
"""Has SQLite copy its log into the database after 100 pages, and not after 1,000."""

FILLING = "x" * 3000


async def say(store, name, event):
    found = await store.read(name)
    if found is not None:
        await store.append(name, event, found.revision)


ACTS = {
    "create": lambda store, name, number: store.create(
        name, state=NO_STATE, ttl=TTL, metadata={"f": FILLING}
    ),
    "message": lambda store, name, number: say(store, name, message(f"m{number}", FILLING)),
    "note": lambda store, name, number: say(store, name, note(f"n{number}")),
    "amend": lambda store, name, number: store.amend(name, metadata={"n": number}, ttl=TTL),
    "extend": lambda store, name, number: store.extend(name),
    "expire": lambda store, name, number: store.expire(name),
    "resurrect": lambda store, name, number: store.resurrect(name, cause=Cause.REQUEST),
    "delete": lambda store, name, number: store.delete(name),
    "expire_due": lambda store, name, number: store.expire_due(3),
    "expire_backlog": lambda store, name, number: store.expire_backlog(3),
    "purge_due": lambda store, name, number: store.purge_due(3),
    "begin": lambda store, name, number: store.begin_run(name, f"r{number}", max_per_user=100),
    "beat": lambda store, name, number: store.beat_runs([f"r{one}" for one in range(number)]),
    "end": lambda store, name, number: store.end_run(f"r{number - 3}", RunStatus.DONE),
}
OFTEN = ("create", "message", "message")
MAY_BE_UNDONE = {"begin", "beat"}
"""What a power cut may undo, as `RunStore` says."""


def contents(path):
    """Return all that a file holds."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            table: sorted(map(repr, connection.execute(f'SELECT * FROM "{table}"')))
            for (table,) in tables.fetchall()
        }


async def history(folder, seed):
    """Play a history on a disk that is recorded; return the trace, and what it holds by the way.

    After `n` calls the file holds the contents `n`. A mark says that a call is done, and whether
    it has changed something that must last, and with it all that was changed before.
    """
    chance, path = Random(seed), folder / "lapse.db"
    with recorded(folder) as trace:
        store = store_with_parts(f"sqlite:///{path}")
        await store.open()
        _, writer = await store.database._lanes.get()
        await writer.run(lambda batch: batch.connection.execute(OFTEN_COPIED))
        trace.begin(FILES)
        held = [contents(path)]
        for number in range(CALLS):
            act = chance.choice([*ACTS, *OFTEN])
            name = key(f"s{chance.randrange(SESSIONS)}")
            with suppress(LapseError):  # a refusal changes nothing
                await ACTS[act](store.at(T0 + number * TTL / 10), name, number)
            held.append(contents(path))
            trace.mark(act not in MAY_BE_UNDONE and held[-1] != held[-2])
        steps = list(trace.steps)
        await store.close()
    trace.steps = steps
    return trace, held


async def cut(folder, trace, held, seed, cuts):
    """Cut the power so many times at random points of a trace, and check each file that is left.

    Returns how many of them have lost something that was acknowledged.
    """
    chance, disk, done, lasting, lost = Random(-seed), Disk.of(trace), 0, 0, 0
    points = sorted(chance.sample(range(len(trace.steps)), cuts))
    for point, step in enumerate(trace.steps):
        if points and point == points[0]:
            del points[0]
            left = folder / f"cut-{point}"
            left.mkdir()
            for name, content in disk.after_cut(chance).items():
                (left / name).write_bytes(content)
            lost += await check(left / "lapse.db", held[: done + 2], lasting, f"{seed}/{point}")
        disk.play(step)
        if isinstance(step, Mark):
            done += 1
            lasting = done if step.said else lasting
    return lost


async def check(path, held, lasting, label):
    """Check that a file is whole; return whether it has lost one of the first `lasting` calls."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], label
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == [], label
    found = contents(path)
    assert found in held, f"{label}: the file holds what it never held"
    store = store_with_parts(f"sqlite:///{path}")
    await create(store, "after the cut", now=None)
    await store.close()
    return found not in held[lasting:]


async def play(seed, folder, broken=None):
    """Cut the power at points of a seed's history; return how often, and raise what was lost."""
    here = folder / f"power-{seed}"
    here.mkdir()
    with unflushed() if broken else nullcontext():
        trace, held = await history(here, seed)
    lost = await cut(here, trace, held, seed, CUTS)
    assert not lost, f"{lost} of {CUTS} cuts undid what was acknowledged"
    shutil.rmtree(here)
    return CUTS
