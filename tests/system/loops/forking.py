"""Forks while a store is open: parent and child both go on. Run with a store's URL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import Any

import asyncpg

from lapse import LapseSessionService, store_from_url

made = 0
connect = asyncpg.connect


async def counting(*args: Any, **kwargs: Any) -> Any:
    global made  # noqa: PLW0603 - it is the whole program's
    made += 1
    return await connect(*args, **kwargs)


asyncpg.connect = counting
service = LapseSessionService(store_from_url(sys.argv[1]), sweep="sweep" in sys.argv)


async def create(session_id: str) -> None:
    await service.create_session(app_name="forked", user_id="ada", session_id=session_id)


def fork(before: str, *, waits: bool) -> int:
    """Fork; the child creates a session, then waits to be told, and creates another."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        status = 1
        try:
            asyncio.run(create(f"{before}-child"))
            if waits:
                os.read(reading, 1)
                asyncio.run(create(f"{before}-orphan"))
            status = 0
        finally:
            os._exit(status)
    if not waits:
        assert os.waitpid(pid, 0)[1] == 0, before
    return writing if waits else 0


def main() -> None:
    asyncio.run(create("parent-1"))
    fork("idle", waits=False)
    asyncio.run(create("parent-2"))

    async def fork_with_connections() -> None:
        """Fork while all connections of the pool are idle: they stay the parent's."""
        await asyncio.gather(*(create(f"idle-{number}") for number in range(20)))
        before = made
        fork("full", waits=False)
        await asyncio.gather(*(create(f"later-{number}") for number in range(10)))
        assert made == before, "the child has ended connections of its parent"

    asyncio.run(fork_with_connections())

    async def fork_in_a_loop() -> None:
        creating = [asyncio.create_task(create(f"busy-{number}")) for number in range(20)]
        await asyncio.sleep(0)
        fork("busy", waits=False)
        await asyncio.gather(*creating)
        await create("parent-3")

    asyncio.run(fork_in_a_loop())

    # Other threads use the store at the moment of the fork.
    over = threading.Event()

    def work() -> None:
        number = 0
        while not over.is_set():
            asyncio.run(create(f"thread-{number}"))
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(5):
        fork(f"threads-{number}", waits=False)
    over.set()
    thread.join()

    # The parent closes everything while a child goes on: SQLite must not take the log away.
    go_on = fork("last", waits=True)
    asyncio.run(create("parent-4"))
    asyncio.run(service.close())
    os.write(go_on, b".")
    assert os.wait()[1] == 0


main()
sys.stdout.write("done\n")
