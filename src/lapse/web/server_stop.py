"""Work that uvicorn does before it waits for open connections to close."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn


def before_server_stops(work: Callable[[], Awaitable[None]]) -> None:
    """Have the uvicorn server of the running event loop do some work first when it shuts down.

    A server that stops waits until all responses have ended, and only then tells the application,
    by its lifespan. A stream that lasts as long as the application would hold it up for ever. The
    server stops listening before the work. Nothing happens on other servers, which give up
    waiting by themselves.
    """
    for server in _servers_here():
        shut_down = server.shutdown

        async def shutdown(
            sockets: Any = None,
            *,
            server: uvicorn.Server = server,
            shut_down: Callable[..., Awaitable[None]] = shut_down,
        ) -> None:
            for listening in server.servers:
                listening.close()
            await work()
            await shut_down(sockets)

        server.shutdown = shutdown  # type: ignore[method-assign]


def _servers_here() -> list[uvicorn.Server]:
    """Return the uvicorn servers that the tasks of the running event loop serve with."""
    if "uvicorn" not in sys.modules:
        return []
    import uvicorn

    found: dict[int, uvicorn.Server] = {}
    for task in asyncio.all_tasks():
        for own in _owners(task.get_coro()):
            if isinstance(own, uvicorn.Server):
                found[id(own)] = own
    return list(found.values())


def _owners(awaited: Any) -> Iterator[Any]:
    """Yield the `self` of each coroutine that a coroutine awaits, itself included."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if frame is not None and "self" in frame.f_locals:
            yield frame.f_locals["self"]
        awaited = getattr(awaited, "cr_await", None)
