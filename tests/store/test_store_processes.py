"""The same races between real processes that share one database."""

import asyncio
import json
import sys
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from backends import DUE, T0, TICK, create, key
from lapse.core.lifecycle import ChangeKind, Status

pytestmark = pytest.mark.long

REPLICA = Path(__file__).with_name("replica.py")
SESSIONS = [f"s{number:03}" for number in range(150)]
GONE = T0 + timedelta(hours=24)
BEFORE, AT = (DUE - TICK).isoformat(), DUE.isoformat()


@asynccontextmanager
async def replica(store_url, *arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        REPLICA,
        store_url,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run_together(store_url, *works):
    """Start one process for each work, let them all go at once, and return what they did."""

    async def finish(process):
        out, _ = await process.communicate()
        assert process.returncode == 0
        return json.loads(out)

    async with asyncio.TaskGroup() as group:
        ready = asyncio.Barrier(len(works))

        async def one(work):
            async with replica(store_url, *work) as process:
                assert await process.stdout.readline() == b"ready\n"
                await ready.wait()
                process.stdin.write(b"go\n")
                return await finish(process)

        tasks = [group.create_task(one(work)) for work in works]
    return [task.result() for task in tasks]


@pytest.fixture
async def store_with_due_sessions(reopen):
    """A store with sessions that are due at DUE."""
    store = await reopen()
    await asyncio.gather(*(create(store, name) for name in SESSIONS))
    return store


async def test_processes_that_sweep_together_expire_each_session_once(
    store_with_due_sessions, store_url
):
    swept = await run_together(store_url, *[["sweep", "7", AT]] * 3)
    assert Counter(name for one in swept for name in one) == Counter(SESSIONS)


async def test_a_process_that_sweeps_loses_no_message_of_another(
    store_with_due_sessions, store_url
):
    heard, expired = await run_together(
        store_url, ["speak", "m", BEFORE, *SESSIONS], ["sweep", "3", AT]
    )
    for name in SESSIONS:
        revived = [ChangeKind.RESURRECTED] * (name in expired)
        assert heard[name] == [*revived, ChangeKind.USED]
        assert (await store_with_due_sessions.at(GONE).lifecycle(key(name))).status is Status.USED
        assert len((await store_with_due_sessions.at(GONE).read(key(name))).events) == 1
    assert (await store_with_due_sessions.at(GONE).purge_due(999)).value == 0


async def test_one_of_two_processes_that_write_to_a_session_has_the_first_message(
    store_with_due_sessions, store_url
):
    one, other = await run_together(
        store_url,
        ["speak", "m1", BEFORE, *SESSIONS],
        ["speak", "m2", BEFORE, *SESSIONS],
    )
    for name in SESSIONS:
        assert sorted([one[name], other[name]]) == [[], [ChangeKind.USED]]
        found = await store_with_due_sessions.at(T0).read(key(name))
        assert [event.id for event in found.events] == ["m1", "m2"]
