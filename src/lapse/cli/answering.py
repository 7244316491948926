"""A port beside a command's work, on the command's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from lapse.limits.rules import Bounds


@asynccontextmanager
async def answering(app: ASGIApp, listener: socket.socket, bounds: Bounds) -> AsyncIterator[None]:
    """Serve an application at a socket while the context is open; signals stay the command's."""
    import uvicorn

    from lapse.limits.protocol import bounded

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(
        uvicorn.Config(
            app,
            http=bounded(bounds),
            ws="none",
            lifespan="off",
            server_header=False,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="lapse-answering")
    try:
        yield
    finally:
        server.should_exit = True
        await serving
