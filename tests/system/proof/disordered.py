"""Replicas whose hosts' clocks are wrong, and replicas that stand still, on one PostgreSQL."""

import asyncio
import random
import signal
import time
from contextlib import AsyncExitStack

from watching import eventually, running

from history import History, stored_at
from postgres import database, rows, run
from wrong_sweeps import CHECKS

FARTHEST = 262
"""Seconds by which a clock is wrong at most."""

LEFT = "SELECT 1 FROM lapse_lobby WHERE status = 'waiting'"
TIMES = """
SELECT session_id, extract(epoch FROM created_at)::float8, extract(epoch FROM expired_at)::float8
FROM lapse_lobby
"""
SPOKEN, CREATED = 10, 20
"""How many sessions a replica speaks to, of how many it creates."""


async def _follow(url, replicas, *, until=lambda: None):
    """Let replicas work until nothing waits any more, and return what they have said."""
    for replica in replicas:
        await replica.until(lambda replica=replica: len(replica.those("heard")) == SPOKEN)
    until()
    await eventually(lambda: not rows(url, LEFT))
    for replica in replicas:
        await replica.kill()
    return History.of(*(replica.facts for replica in replicas))


async def clocks(seed, _folder=None, broken=None):
    """Have two replicas whose clocks are wrong, or jump; return how many clocks there were."""
    chance, began = random.Random(seed), time.time()
    options = [
        [f"shift={sign * chance.uniform(1, FARTHEST):.3f}", *(["jumps"] * (chance.random() < 0.3))]
        for sign in (1, -1)
    ]
    if broken:
        options = [[f"shift={FARTHEST}", "host"], [f"shift=-{FARTHEST}", "host"]]
    with database() as url:
        async with AsyncExitStack() as stack:
            begun = [running(url, "talk", f"r{n}", *one) for n, one in enumerate(options)]
            replicas = [await stack.enter_async_context(one) for one in begun]
            told = await _follow(url, replicas)
        faults = told.faults(stored_at(url))
        for name, created_at, expired_at in rows(url, TIMES):
            if not began - 1 < created_at < time.time() + 1:
                faults.append(f"{name} was created {created_at - began:.1f} s after the beginning")
            if expired_at is not None and not created_at + 1 <= expired_at < time.time() + 1:
                faults.append(f"{name} expired {expired_at - created_at:.1f} s after its creation")
    assert not faults, "\n".join(faults[:9])
    return len(options)


async def pauses(seed, _folder=None, broken=None):
    """Stop replicas with SIGSTOP, each at any moment, and let them go on; return how often."""
    chance, stops = random.Random(seed), 0
    with database() as url:
        if broken:
            run(url, *(command for (command,) in rows(url, CHECKS)))
        wrong = ["wrong"] if broken else []
        async with AsyncExitStack() as stack:
            begun = [running(url, "talk", f"r{n}", "sleep=0.05", *wrong) for n in range(2)]
            replicas = [await stack.enter_async_context(one) for one in begun]
            for _ in range(6):
                stopped = chance.choice(replicas).process
                stopped.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(chance.choice((0.01, 0.1, 0.6)))
                finally:
                    stopped.send_signal(signal.SIGCONT)
                await asyncio.sleep(chance.uniform(0.01, 0.3))
                stops += 1
            told = await _follow(url, replicas)
        faults = told.faults(stored_at(url))
    assert not faults, "\n".join(faults[:9])
    return stops
