"""The power is cut: SQLite's file has all that was acknowledged, and is whole."""

import asyncio
import os

import pytest
from disk import Disk, Mark, Write, can_record
from power import cut, history

from backends import create, key
from breaks import unflushed
from parts import store_with_parts

pytestmark = pytest.mark.skipif(
    not can_record() and "CI" not in os.environ,
    reason="NO VFS: this Python hides its SQLite library; with another one, this is tried, too",
)

FULL = 2
SEEDS = [
    pytest.param(1, 60, id="1"),
    *(pytest.param(seed, 100, id=f"{seed}", marks=pytest.mark.long) for seed in range(2, 12)),
]
"""The seeds of histories, each with how many power cuts are tried on it: a thousand in the long."""


@pytest.mark.parametrize(("seed", "cuts"), SEEDS)
async def test_no_power_cut_undoes_what_was_acknowledged(tmp_path, seed, cuts):
    """A failure names the seed and the point of the cut; the same cut can be made again.

    Seen to fail with a writer that commits with `synchronous = NORMAL`, always or once it has
    committed work that need not last.
    """
    trace, held = await history(tmp_path, seed)
    copied = sum(isinstance(step, Write) and step.file == "lapse.db" for step in trace.steps)
    assert copied > 0, "the log was never copied into the database"
    assert await cut(tmp_path, trace, held, seed, cuts) == 0


async def test_without_waiting_for_the_disk_power_cuts_undo_what_was_acknowledged(tmp_path):
    """The disk of these tests does forget, and even then no file is torn."""
    with unflushed():
        trace, held = await history(tmp_path, seed=1)
    assert await cut(tmp_path, trace, held, seed=1, cuts=60) > 0


async def test_what_is_acknowledged_is_synced_before_it_is_told(tmp_path):
    """Seen to fail with `synchronous = NORMAL`."""
    trace, _ = await history(tmp_path, seed=1)
    disk = Disk.of(trace)
    for step in trace.steps:
        disk.play(step)
        if step == Mark(said=True):
            assert "lapse.db-wal" not in disk.pending


async def test_the_writer_of_a_store_waits_for_the_disk(tmp_path):
    """Seen to fail with `synchronous = NORMAL`."""

    def level(batch):
        return batch.connection.execute("PRAGMA synchronous").fetchone()[0]

    store = store_with_parts(f"sqlite:///{tmp_path / 'lapse.db'}")
    await create(store, now=None)
    await store.begin_run(key(), "run", max_per_user=1)
    _, writer = await store.database._lanes.get()
    assert await writer.run(level) == FULL
    await asyncio.wait_for(store.close(), 30)
