"""When Lapse works beside an application's requests: within its lifespan, or from a request on."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from typing import Any, Final, Protocol, Self

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.notices.watcher import Watcher
from lapse.runs.runs import Runs
from lapse.web.server_stop import before_server_stops

_NO_LIFESPAN: Final = (
    "the application's lifespan has not run: Lapse starts with the first request instead, and "
    'sweeps nothing before; pass it on from the outer application (see "Below a path prefix" in '
    "docs/operations.md)"
)

_log = logging.getLogger(__name__)


class Whole(Protocol):
    """The work beside requests, with its store."""

    async def __aenter__(self) -> Self:
        """Open the store, and begin."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """End, and close the store."""
        ...

    async def begin(self) -> None:
        """Begin to work on the running event loop; the store opens at its first use."""
        ...

    async def end(self) -> None:
        """End the work; the store stays open."""
        ...


class Life:
    """Has Lapse work for an application: within its lifespan, or else from its first request on.

    Starlette runs no lifespan of an application that is mounted in another one, unless the outer
    application passes it on. Lapse then begins to work with the first request and ends with the
    event loop, which cancels its task. An application whose lifespan has run is left alone.

    If uvicorn serves the application, streams end before uvicorn waits for open connections,
    which it may do for ever.
    """

    def __init__(self, whole: Whole, runs: Runs, watcher: Watcher) -> None:
        self._whole = whole
        self._runs = runs
        self._watcher = watcher
        self._has_lifespan = False
        self._has_warned = False
        self._keeper: asyncio.Task[None] | None = None
        self._has_begun = False

    @property
    def is_on(self) -> bool:
        """Return whether there is, or was, a lifespan, or else a request has begun the work."""
        return self._has_lifespan or (self._has_begun and self._is_kept)

    @property
    def _is_kept(self) -> bool:
        keeper = self._keeper
        return keeper is not None and not keeper.done() and not keeper.get_loop().is_closed()

    def run_within(self, app: FastAPI) -> None:
        """Have an application's lifespan run the whole of Lapse around its own."""
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
            self._has_lifespan = True
            await self._end_keeper()
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._whole)
                await self._runs.start()
                state = await stack.enter_async_context(inner(app))
                # Before ADK closes the runners.
                stack.push_async_callback(self._runs.drain)
                before_server_stops(self._end_streams)
                yield state

        app.router.lifespan_context = lifespan

    async def begin(self) -> None:
        """Begin to work, in a task that the event loop cancels when it ends; wait until it has.

        It takes no longer than a few seconds, also if the store does not answer.
        """
        if not self._is_kept:
            self._begin()
        assert self._keeper is not None
        await asyncio.wait([self._keeper, self._begun], return_when=asyncio.FIRST_COMPLETED)

    def _begin(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(_NO_LIFESPAN)
        loop = asyncio.get_running_loop()
        self._has_begun = False
        self._begun: asyncio.Future[None] = loop.create_future()
        # The task is not of the request that begins it.
        self._keeper = loop.create_task(
            self._keep(self._begun), name="lapse-without-lifespan", context=Context()
        )

    async def _keep(self, begun: asyncio.Future[None]) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._whole.end)
            await self._whole.begin()
            stack.push_async_callback(self._runs.drain)
            await self._runs.start()
            before_server_stops(self._end_streams)
            self._has_begun = True
            begun.set_result(None)
            # Until it is cancelled. The timer has the event loop hold the task, which would else
            # be collected with an application that nobody holds any more.
            await asyncio.sleep(math.inf)

    async def _end_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper.get_loop() is asyncio.get_running_loop():
            keeper.cancel()
            await asyncio.wait([keeper])

    async def _end_streams(self) -> None:
        self._watcher.end()
        await self._runs.drain()


class LifeMiddleware:
    """Begins what works beside requests with the first one, where no lifespan has begun it."""

    def __init__(self, app: ASGIApp, *, life: Life) -> None:
        self._app = app
        self._life = life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if not self._life.is_on and scope["type"] in {"http", "websocket"}:
            await self._life.begin()
        await self._app(scope, receive, send)
