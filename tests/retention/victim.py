"""A process that is killed with SIGKILL in a chosen step of an operation on a store."""

import asyncio
import multiprocessing
import os
import signal
from pathlib import Path

from archiving import DAY, LATER, POLICY, archive

from backends import key
from lapse.adk.remembered import Memory
from lapse.core.feed import Feed
from lapse.core.lifecycle import Cause
from lapse.erasure.erasing import Erasure
from lapse.export.importing import Import
from lapse.retention.forgetting import Forgetting
from lapse.retention.hooks import HookCalls
from lapse.retention.purging import Beside, HookedPurges
from lapse.store.postgres import connections
from lapse.store.postgres.call import Call
from lapse.store.sqlite.transaction import Transaction
from parts import store_with_parts
from postgres import await_connections

VICTIM = "lapse's victim"
"""What PostgreSQL knows the process by."""

PURGE = LATER + 100 * DAY
NAMES = ("s1", "s2", "s3")

_PASSING = []
"""What counts the steps of this process beside those of its store."""

_CONTEXT = multiprocessing.get_context("forkserver")


async def _archive(store, _):
    await archive(store, *map(key, NAMES))


async def _restore(store, _):
    for name in NAMES:
        await store.resurrect(key(name), cause=Cause.REQUEST)


async def _purge(store, _):
    await store.at(PURGE).purge_archived(10)


async def _scan(store, _):
    while not (await store.at(PURGE).scan(POLICY)).is_whole:
        pass


async def _erase(store, _):
    await Erasure(store.database, "ann", end=store.delete).run("op")


async def _import(store, folder):
    work = Import(store.database, Path(folder), artifacts=None)
    await work.verify()
    await work.check()
    await work.put(lambda _: None)


class FolderMemory:
    """A memory service that outlives its process: a file for each event that it remembers."""

    def __init__(self, folder):
        self._folder = Path(folder)

    def add(self, event_id):
        (self._folder / event_id).touch()

    def remembered(self):
        return {file.name for file in self._folder.iterdir()}

    async def delete_memory(self, *, app_name, user_id, memory_id=None):
        for pass_one in _PASSING:
            pass_one()
        (self._folder / memory_id).unlink(missing_ok=True)


async def purge_and_forget(store, folder):
    """Purge what is due by a keeper whose memory service forgets, and let it forget."""
    beside = Beside(forgets=lambda: True)
    hooked = HookedPurges(store.database, Feed(), beside, on_room=lambda: None)
    async with hooked.owned():
        await hooked.begin((), forgets=True)
        while hooked._tasks:
            await asyncio.wait(hooked._tasks)
    await Forgetting(store.database, Memory(FolderMemory(folder)).forget, HookCalls()).step()


async def _forget(store, folder):
    await purge_and_forget(store.at(PURGE), folder)


OPERATIONS = {
    "archive": _archive,
    "restore": _restore,
    "purge": _purge,
    "scan": _scan,
    "erase": _erase,
    "import": _import,
    "forget": _forget,
}


def dies_in(step, url, name, folder=""):
    """Run an operation in a process that dies in its step of this number; False: it has fewer.

    A step is a statement, the end of a transaction before its commit, or an event to forget. The
    locks that the process held on PostgreSQL are gone: its server notices a moment after the death.
    """
    process = _CONTEXT.Process(target=_run, args=(step, url, name, folder), daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode in {0, -signal.SIGKILL}, process.exitcode
    assert await_connections(url, 0, VICTIM)
    return process.exitcode != 0


def _run(step, url, name, folder):
    connections.APPLICATION = VICTIM
    asyncio.run(_do(step, url, name, folder))


async def _do(step, url, name, folder):
    store = store_with_parts(url)
    await store.open()
    _die_in(step)
    await OPERATIONS[name](store, folder)


def _die_in(step):
    left = step

    def pass_one():
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    _PASSING.append(pass_one)
    answer, drive = Transaction._answer, Transaction.drive
    asked, driven = Call._answer, Call.drive

    def answered(self, request):
        pass_one()
        return answer(self, request)

    def done(self, asking):
        result = drive(self, asking)
        pass_one()
        return result

    async def answered_there(self, request):
        pass_one()
        return await asked(self, request)

    async def done_there(self, asking):
        result = await driven(self, asking)
        pass_one()
        return result

    Transaction._answer, Transaction.drive = answered, done
    Call._answer, Call.drive = answered_there, done_there
