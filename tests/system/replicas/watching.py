"""Replicas in processes of their own, and what they say."""

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

REPLICA = Path(__file__).with_name("replica.py")
BOUND = 30.0


async def eventually(condition):
    """Return once a condition holds, which has to be polled."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Replica:
    """A running replica; `facts` are the lines it printed, in words."""

    def __init__(self, process):
        self.process = process
        self.facts = []
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        while line := await self.process.stdout.readline():
            if line.endswith(b"\n"):
                self.facts.append(line.decode().split())
            self._news.set()
        self._news.set()

    def those(self, word):
        """Return the facts of one kind, without the word."""
        return [fact[1:] for fact in self.facts if fact[0] == word]

    async def until(self, holds):
        """Return once `holds()`, which is asked after each line."""
        async with asyncio.timeout(BOUND):
            while not holds():
                assert not self._reading.done(), "it ended"
                self._news.clear()
                await self._news.wait()

    async def more(self, count):
        """Return once it has said so much more."""
        goal = len(self.facts) + count
        await self.until(lambda: len(self.facts) >= goal)

    async def kill(self):
        """End it with no warning and read what it had said by then."""
        if self.process.returncode is None:
            self.process.kill()
        await self._reading
        await self.process.wait()


async def start(url, work, turn, *options):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        REPLICA,
        url,
        work,
        str(turn),
        *options,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    return Replica(process)


@asynccontextmanager
async def running(url, work, turn="0", *options):
    """Run a replica for the duration of the block."""
    replica = await start(url, work, turn, *options)
    try:
        yield replica
    finally:
        await replica.kill()
