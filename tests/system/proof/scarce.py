"""A server under load has no room on its disk any more, or no descriptors, until it has them again.

Callers ask it over HTTP all the while. What cannot be done is refused, what was acknowledged stays,
and nothing has to be started again but a PostgreSQL that ended itself.
"""

import asyncio
import os
import random
import resource
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import asyncpg
import httpx
from callers import LONG, Callers
from crashes import UNFLUSHED
from killed import check

from postgres import OwnServer, blank, prepare, rows, run
from serving import BROKEN, Server, copied_agents, eventually

TIMES = 2
"""How often one round takes away what a server needs."""

TROUBLES, ENOUGH = 12, 150
"""So many requests that are not answered show that it is missing; so many that are, that it is not
needed."""

SMALL = {"sqlite": "6m", "postgres": "96m"}
BREAKS = {
    ("disk", "sqlite"): "swallow_failures",
    ("descriptors", "postgres"): "miss_what_cannot_be_read",
}
"""The break of each nemesis that is one of the server; that of a full PostgreSQL is its own."""

ALL_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@contextmanager
def small_disk(folder, size):
    """Have a folder be a disk of its own for the duration of the block, where root may do that."""
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "lapse-proof", folder],
            check=False,
            capture_output=True,
        ).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def no_room(folder, chance):
    """Have nothing more fit on a disk than a few pages."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with filler.open("r+b") as file:
            file.truncate(max(filler.stat().st_size - chance.choice((0, 4096, 1 << 16)), 0))
        yield
    finally:
        filler.unlink()


@contextmanager
def limited(pid, what, most):
    """Limit what a process may have, and give it back."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, what, before)


async def disk(seed, folder, broken=None, *, store):
    """Fill the disk of a store; return how often that was felt, and raise what is wrong."""
    chance, small = random.Random(seed), folder / "disk"
    with small_disk(small, SMALL[store]) as mounted:
        if store == "sqlite":
            url = f"sqlite:///{small}/lapse.db"

            def full(server):
                if mounted:
                    return no_room(small, chance)
                size = (small / "lapse.db-wal").stat().st_size
                return limited(server.process.pid, resource.RLIMIT_FSIZE, size)

            async with serving(seed, folder, url, "disk", broken) as one:
                return await one.squeeze(full)
        assert mounted, "only root can give PostgreSQL a small disk of its own"
        own = OwnServer(small)
        try:
            prepare(own.url)
            url = own.url + (UNFLUSHED if broken else "")

            def ended():
                if broken or chance.random() < 0.5:
                    with suppress(asyncpg.PostgresError, OSError):
                        run(
                            own.url, "SELECT pg_switch_wal()"
                        )  # it ends itself for want of the next

            async with serving(seed, folder, url, "disk", None, own=own) as one:
                return await one.squeeze(lambda _: no_room(small, chance), ended)
        finally:
            own.end()


async def descriptors(seed, folder, broken=None):
    """Let a server open nothing more; return how often that was felt, and raise what is wrong."""
    chance = random.Random(seed)
    store = "postgres" if broken else ("sqlite", "postgres")[seed % 2]

    def none_left(server):
        most = max(int(one.name) for one in Path(f"/proc/{server.process.pid}/fd").iterdir()) + 1
        return limited(
            server.process.pid, resource.RLIMIT_NOFILE, chance.choice((8, 16, most, most + 1))
        )

    if store == "sqlite":
        async with serving(seed, folder, f"sqlite:///{folder}/lapse.db", "descriptors") as one:
            return await one.squeeze(none_left)
    with blank() as url:  # nobody else is connected to it
        prepare(url)

        def disconnect():
            rows(url, ALL_OTHERS)  # so that it has to connect again

        async with serving(seed, folder, url, "descriptors", broken) as one:
            return await one.squeeze(none_left, disconnect)


@asynccontextmanager
async def serving(seed, folder, url, what, broken=None, *, own=None):
    """Serve callers for the duration of the block; then compare the store with their history."""
    settings = {BROKEN: BREAKS[what, url.partition(":")[0].removesuffix("ql")]} if broken else {}
    agents = str(copied_agents(folder / "agents"))
    server = await asyncio.to_thread(
        Server, folder, agents, "--store", url, starts_within=LONG, **settings
    )
    callers = Callers(seed, lasting=what == "disk")
    callers.moved(server.url)
    callers.start()
    try:
        yield Squeezed(server, callers, random.Random(seed), own)
    finally:
        told = await callers.stop()
        await asyncio.to_thread(server.stop)
    await check(own.url if own else url, told, callers.faults)


class Squeezed:
    """A server, and those who go on asking it while it lacks something."""

    def __init__(self, server, callers, chance, own=None):
        self._server, self._callers, self._chance, self._own = server, callers, chance, own

    async def squeeze(self, taken, then=lambda: None):
        """Take something away a few times; return how often callers have felt it.

        `then` is called while it is missing. A PostgreSQL that has ended is started again.
        """
        felt = 0
        for _ in range(TIMES):
            await self._callers.more(self._chance.randint(5, 60))
            troubles = self._callers.troubles
            with taken(self._server):
                await asyncio.to_thread(then)
                await self._callers.trouble(TROUBLES, ENOUGH)
            felt += self._callers.troubles > troubles
            if self._own:
                await asyncio.to_thread(_started_again, self._own)
            await asyncio.to_thread(eventually, self._is_ready, within=LONG)
            await self._callers.more(30)
        return felt

    def _is_ready(self):
        assert self._server.process.poll() is None, f"it has ended:\n{self._server.log[-2000:]}"
        with suppress(httpx.TransportError):  # it may have closed the connection meanwhile
            return self._server.client.get("/readyz").status_code == 200
        return False


def _started_again(own):
    """Return once PostgreSQL answers; start it anew if it does not for a while.

    It may live on without answering: when its recovery finds no room, PostgreSQL 18 waits for ever
    for a process that has ended.
    """
    end, latest = time.monotonic() + 5, time.monotonic() + LONG
    while time.monotonic() < latest:
        with suppress(asyncpg.PostgresError, OSError):
            rows(own.url, "SELECT 1")
            return
        if time.monotonic() > end:
            for act in (partial(own.stop, "immediate"), own.start):
                with suppress(subprocess.CalledProcessError):
                    act()
            end = time.monotonic() + 20
        time.sleep(0.1)
    raise AssertionError(f"PostgreSQL does not start again:\n{own.log[-2000:]}")
