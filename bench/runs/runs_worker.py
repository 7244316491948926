"""The readers of a run: many connections in one process, each with how late its events came.

    python bench/runs/runs_worker.py PORT PATH READERS [stalled]

It prints the lags of what was made once all were connected, in milliseconds, as JSON, when all
streams have ended. With `stalled` one more connection is made that does not read until the others
are done, and then resumes for as long as it is let.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

import uvloop

_MOMENT = re.compile(rb"@(\d+)@")
_ENOUGH = 100
_ID = re.compile(rb"^id: (\S+)\n", re.MULTILINE)


class Reader(asyncio.Protocol):
    """Notes for each event how long after it was made it is here."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.lags: list[tuple[int, float]] = []
        self.moments: set[bytes] = set()
        self.last_id = b""
        self.done = False
        self.open = asyncio.get_running_loop().create_future()
        self.closed = asyncio.get_running_loop().create_future()
        self._kept = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.head)

    def data_received(self, data: bytes) -> None:
        now = time.time_ns()
        if not self.open.done():
            self.open.set_result(None)
        *whole, self._kept = (self._kept + data).split(b"\n\n")
        for block in whole:
            for moment in _MOMENT.findall(block):
                self.lags.append((int(moment), (now - int(moment)) / 1e6))
                self.moments.add(moment)
            for found in _ID.findall(block):
                self.last_id = found
            if b"event: done" in block:
                self.done = True
        if self.done:
            self.transport.close()

    def eof_received(self) -> None:
        self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


def head(path: str, last_id: str = "") -> bytes:
    resumed = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{resumed}\r\n".encode()


async def connect(port: int, path: str, last_id: str = "") -> Reader:
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(lambda: Reader(head(path, last_id)), "127.0.0.1", port)
    return reader


async def stall(port: int, path: str) -> Reader:
    """Connect and read nothing."""
    reader = await connect(port, path)
    await reader.open
    reader.transport.pause_reading()
    return reader


async def main(port: int, path: str, number: int, *, stalled: bool) -> None:
    slow = await stall(port, path) if stalled else None
    readers = []
    for start in range(0, number, 50):
        readers += await asyncio.gather(
            *(connect(port, path) for _ in range(min(50, number - start)))
        )
    await asyncio.gather(*(reader.open for reader in readers))
    connected = time.time_ns()
    await asyncio.gather(*(reader.closed for reader in readers))
    told = {
        "lags": [lag for reader in readers for made, lag in reader.lags if made > connected],
        "complete": all(reader.done for reader in readers),
    }
    if slow is not None:
        slow.transport.resume_reading()
        await slow.closed
        told["dropped"] = not slow.done
        seen = set(slow.moments)
        resumes = 0
        while not slow.done:
            resumes += 1
            assert resumes < _ENOUGH, "it is dropped again and again"
            slow = await connect(port, path, slow.last_id.decode())
            await slow.closed
            seen |= slow.moments
        told["resumes"] = resumes
        told["all"] = seen == readers[0].moments
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    port, path, number, *more = sys.argv[1:]
    uvloop.run(main(int(port), path, int(number), stalled="stalled" in more))
