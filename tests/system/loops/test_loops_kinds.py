"""Whatever a process keeps for longer than an event loop works on the next loop, too."""

from __future__ import annotations

import asyncio
import math
import os
import threading

import pytest

from lapse.adk.agents import ServedApps
from lapse.auth.keys import PublishedKeys
from lapse.check.store import Probe
from lapse.notices.announcements import Announcements
from parts import store_with_parts


def on_two_loops(work, *, before) -> None:
    """Await eight at once, on one event loop after another; all but the first have to wait."""

    async def together() -> None:
        await asyncio.gather(*(work() for _ in range(8)))

    for _ in range(2):
        before()
        asyncio.run(together())


def test_the_list_of_served_apps() -> None:
    """Seen to fail with one lock for all loops."""
    served = ServedApps(listing=lambda: ["known"])

    def forget() -> None:
        served._listed_at = -math.inf

    on_two_loops(lambda: served.has("unknown"), before=forget)


def test_the_keys_of_an_issuer() -> None:
    """Seen to fail with one lock for all loops."""
    keys = PublishedKeys("http://127.0.0.1:1/keys")

    def forget() -> None:
        keys._asked_at = None

    on_two_loops(keys._read_again, before=forget)


def test_the_probe_of_readiness(store_url) -> None:
    """Seen to fail with a probe that waits for the task of an earlier loop."""
    store = store_with_parts(store_url)
    probe = Probe(store)

    async def ask_and_leave() -> None:
        asking = asyncio.create_task(probe.fault())
        await asyncio.sleep(0)
        asking.cancel()

    async def ask() -> str | None:
        return await probe.fault()

    asyncio.run(ask_and_leave())
    assert asyncio.run(ask()) is None
    assert asyncio.run(ask()) is None
    asyncio.run(store.close())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_processes_that_are_forked_before_they_listen_have_names_of_their_own(store) -> None:
    """Seen to fail with a sender that is named when it is made."""
    announcements = Announcements(store)
    names = set()
    for _ in range(2):
        async with announcements.listen(lambda _digests: None):
            names.add(announcements._sender)
    assert len(names) == 2


def test_a_lock_that_is_held_at_a_fork_is_free_in_the_child() -> None:
    """Seen to fail with a lock that a thread held when the process forked."""
    from lapse.core.background import Background

    async def step():
        raise NotImplementedError

    work = Background("held", step)
    with work._guard:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if work._guard.acquire(blocking=False) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert threading.active_count() >= 1
