"""A process that has used a store may fork, as `gunicorn --preload` and Celery do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parts import store_with_parts

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

FORKING = Path(__file__).with_name("forking.py")


@pytest.mark.parametrize(
    "sweep", [[], pytest.param(["sweep"], marks=pytest.mark.long)], ids=["", "sweeping"]
)
async def test_parent_and_child_both_go_on(store_url, backend, sweep) -> None:
    """Seen to fail with threads, or connections, that the child takes for its own.

    On SQLite also with files that are open while the process forks: the last session is lost.
    """
    ended = subprocess.run(  # noqa: ASYNC221 - there is nothing else to do
        [sys.executable, "-W", "ignore", FORKING, store_url, *sweep],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == ("done\n", 0), ended.stderr
    if not backend.shared:
        return
    store = store_with_parts(store_url)
    found = {one.key.session_id for one in await store.list("forked", "ada")}
    await store.close()
    expected = {f"parent-{number}" for number in range(1, 5)}
    expected |= {f"{before}-child" for before in ("idle", "full", "busy", "last")} | {"last-orphan"}
    expected |= {f"threads-{number}-child" for number in range(5)}
    assert expected <= found
    assert sum(one.startswith("busy-") for one in found) == 21
