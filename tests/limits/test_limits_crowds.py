"""The memory of a crowd of connections is given back once it has gone."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from lapse.limits.crowds import Crowds, heap_trim
from serving import eventually, serving


@pytest.mark.parametrize(
    ("counts", "trims"),
    [
        ([0, 999, 0], 0),
        ([1000, 101, 100], 0),
        ([1000, 99, 0, 0], 1),
        ([500, 1000, 5000, 499, 499, 40], 1),
        ([1000, 0, 1000, 0], 2),
    ],
    ids=["a few", "some are left", "gone", "the largest counts", "another one"],
)
async def test_memory_is_given_back_once_for_each_crowd_that_has_gone(counts, trims):
    """Seen to fail without the largest number, and with one that is never set back."""
    given_back = []
    crowds = Crowds(lambda: given_back.append(1))
    for before, count in pairwise([0, *counts]):
        if count > before:
            crowds.note(count)
        else:
            await crowds.look(count)
    assert len(given_back) == trims


@pytest.fixture
def many_files():
    """Allow this process, and the servers that it starts, as many files as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_nothing_can_be_given_back_nothing_happens(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    heap_trim()()


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists() or os.confstr("CS_GNU_LIBC_VERSION") is None,
    reason="Linux tells how much a process holds, and glibc gives memory back",
)
def test_a_server_gives_the_memory_of_a_crowd_back(tmp_path, many_files):
    """Seen to fail with a server that counts no connections: it keeps nearly all of it."""
    # The heap of a forked server has room for a crowd already.
    with serving(tmp_path, fresh=True) as server:
        pid, place = server.process.pid, (server.client.base_url.host, server.client.base_url.port)
        before = resident(pid)
        with ExitStack() as crowd:
            for _ in range(4_000):
                crowd.enter_context(socket.create_connection(place))
            eventually(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) > 4_000)
            grown = resident(pid) - before
        eventually(lambda: resident(pid) - before < 0.75 * grown)
        assert server.client.get("/livez").status_code == 200
