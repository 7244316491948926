"""Measures the resident memory of one process: Lapse as a server has it, or the naive design."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import BackgroundTasks, FastAPI

from bench.support.children import Answer, Request, answer_requests

_TTL = 1800.0
_TOGETHER = 32


class Lapse:
    """A service and its sweeper, as `lapse serve` runs them."""

    def __init__(self, directory: Path) -> None:
        from lapse.adk.service import LapseSessionService
        from lapse.core.feed import Feed
        from lapse.store import store_from_url
        from lapse.telemetry.metrics import Metrics

        store = store_from_url(f"sqlite:///{directory / 'memory.db'}")
        feed = Feed()
        feed.subscribe(Metrics().count_change)
        self._service = LapseSessionService(store, feed=feed, sweep=True)

    async def create(self, number: int) -> None:
        await self._service.create_session(app_name="bench", user_id=f"user-{number}")

    async def close(self) -> None:
        await self._service.close()


class Naive:
    """A task that sleeps for each session: FastAPI's background task of the request.

    Requests go into the application by its ASGI interface, with no server in front: what a
    server keeps for a request that is not over comes on top.
    """

    def __init__(self, _directory: Path) -> None:
        self._app = FastAPI()
        self._tasks: set[asyncio.Task[None]] = set()

        async def expire(_session_id: str) -> None:
            await asyncio.sleep(_TTL)

        @self._app.post("/sessions/{session_id}")
        async def create(session_id: str, background: BackgroundTasks) -> dict[str, str]:
            background.add_task(expire, session_id)
            return {"id": session_id}

    async def create(self, number: int) -> None:
        answered = asyncio.Event()
        path = f"/sessions/session-{number}"
        scope: MutableMapping[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.body":
                answered.set()

        async def serve() -> None:
            await self._app(scope, receive, send)

        self._tasks.add(asyncio.create_task(serve()))
        await answered.wait()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Worker:
    """Answers the requests grow (to so many sessions) and close."""

    def __init__(self, design: Callable[[Path], Any]) -> None:
        self._design = design
        self._running: Any = None
        self._numbers = itertools.count()
        self._sessions = 0

    async def handle(self, request: Request) -> Answer:
        if request["do"] == "close":
            await self._running.close()
            return {}
        self._running = self._running or self._design(Path(request["directory"]))
        wanted = request["sessions"] - self._sessions
        await asyncio.gather(*(self._create(wanted, n) for n in range(_TOGETHER)))
        self._sessions = request["sessions"]
        gc.collect()
        return {"rss": _resident()}

    async def _create(self, wanted: int, first: int) -> None:
        create: Callable[[int], Awaitable[None]] = self._running.create
        for _ in range(first, wanted, _TOGETHER):
            await create(next(self._numbers))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096


if __name__ == "__main__":
    answer_requests(Worker({"lapse": Lapse, "naive": Naive}[sys.argv[1]]).handle)
