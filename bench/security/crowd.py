"""A crowd of strangers: connections that say nothing, half of something, or read nothing.

A process of its own. It keeps as many open as it is asked for: one that the server closes is
replaced, at a bounded rate.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from contextlib import suppress
from typing import Any, Final, cast

from bench.support.children import Answer, Request, answer_requests

_SOURCES: Final = [f"127.0.0.{last}" for last in range(2, 32)]
"""Where they come from: one address has too few ports for all that come and go in a minute."""

_HEAD: Final = b"GET /lapse/client.js HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_RUN: Final = b"POST /run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
_SEGMENT: Final = 1400
"""Bytes of a segment on a network; a loopback device has 65,483, and much larger buffers."""

SAID: Final = {
    "idle": b"",
    "slow head": _HEAD + b"X-Slow: ",
    "slow body": _RUN + b"Content-Length: 1000000\r\n\r\n{",
    "unread": (_HEAD + b"\r\n") * 20,
}
_DRIPS: Final = {"slow head", "slow body"}
_EVERY: Final = 5.0
"""Seconds between two bytes of a slow one."""


class Stranger(asyncio.Protocol):
    """One connection of the crowd."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._drip: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._crowd.open.add(self)
        kind = self._crowd.kind
        if kind == "unread":
            self._transport.pause_reading()
        if SAID[kind]:
            self._transport.write(SAID[kind])
        if kind in _DRIPS:
            self._again()

    def connection_lost(self, _error: Exception | None) -> None:
        self._crowd.open.discard(self)
        self._crowd.closed += 1
        if self._drip is not None:
            self._drip.cancel()

    def leave(self) -> None:
        self._transport.abort()

    def _again(self) -> None:
        self._transport.write(b"x")
        self._drip = asyncio.get_running_loop().call_later(_EVERY, self._again)


class Crowd:
    """So many connections of one kind."""

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.open: set[Stranger] = set()
        self.opened = self.closed = self.failed = 0
        self._port = port

    async def keep(self, count: int, *, pace: int, seconds: float) -> None:
        """Have so many open, with at most so many new ones a second, for so long."""
        loop = asyncio.get_running_loop()
        end, step = loop.time() + seconds, 0.05
        while (now := loop.time()) < end:
            missing = min(count - len(self.open), int(pace * step))
            if missing > 0:
                await asyncio.gather(*(self._connect() for _ in range(missing)))
            await asyncio.sleep(max(0.0, now + step - loop.time()))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        one = socket.socket()
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
        if self.kind == "unread":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            one.bind((_SOURCES[self.opened % len(_SOURCES)], 0))
            async with asyncio.timeout(10):
                await loop.sock_connect(one, ("127.0.0.1", self._port))
                await loop.create_connection(lambda: Stranger(self), sock=one)
            self.opened += 1
        except (OSError, TimeoutError):
            self.failed += 1
            one.close()

    async def leave(self) -> None:
        """Close all of them."""
        for stranger in list(self.open):
            stranger.leave()
        while self.open:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.01)


async def handle(request: Request) -> Answer:
    """Keep a crowd for so long, let it go, and tell how many there were."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = request["count"] + 200
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    crowd = Crowd(request["kind"], request["port"])
    held: list[int] = []

    async def count() -> None:
        await asyncio.sleep(request["ramp"])
        while True:
            held.append(len(crowd.open))
            await asyncio.sleep(0.5)

    began = time.perf_counter()
    counting = asyncio.create_task(count())
    try:
        await crowd.keep(
            request["count"], pace=request["pace"], seconds=request["ramp"] + request["seconds"]
        )
    finally:
        counting.cancel()
        with suppress(asyncio.CancelledError):
            await counting
    took = time.perf_counter() - began
    told: dict[str, Any] = {
        "held": sum(held) / max(1, len(held)),
        "least": min(held, default=0),
        "opened": crowd.opened,
        "closed": crowd.closed,
        "failed": crowd.failed,
        "took": took,
    }
    await crowd.leave()
    return told


if __name__ == "__main__":
    answer_requests(handle)
