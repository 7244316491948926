"""A load generator: keep-alive connections on one event loop, requests prepared beforehand.

It speaks just enough HTTP for uvicorn's answers, and looks for the end of each in the bytes
that come, so that it costs a fraction of what any server does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import Any, cast

from bench.support.children import Answer, Request, answer_requests
from bench.support.figures import quantile

_HEAD_END = b"\r\n\r\n"
_CHUNKED_END = b"0\r\n\r\n"
_LENGTH = b"content-length: "


class Run:
    """One measurement: what is still to be sent, until when, and what came back."""

    def __init__(self, request: Request) -> None:
        encoded = [_encode(*asked) for asked in request["requests"]]
        self.requests: Iterator[bytes] = cycle(encoded) if request["repeat"] else iter(encoded)
        self.expected = request["expected"].encode()
        self.keep = request["keep"]
        self.end = time.perf_counter() + request["seconds"]
        self.latencies: list[float] = []
        self.first_bytes: list[float] = []
        self.first_bodies: list[float] = []
        self.wrong: Counter[str] = Counter()
        self.kept: list[bytes] = []

    def next(self) -> bytes | None:
        """Return the next request, or None when time or requests are over."""
        return next(self.requests, None) if time.perf_counter() < self.end else None

    def note(self, answer: bytes, sent: float, first_byte: float, first_body: float) -> None:
        """Note one whole answer."""
        if not answer.startswith(b"HTTP/1.1 200") or self.expected not in answer:
            self.wrong[answer.partition(b"\r\n")[0].decode("latin-1") or "broken"] += 1
            return
        self.latencies.append(time.perf_counter() - sent)
        self.first_bytes.append(first_byte - sent)
        self.first_bodies.append(first_body - sent)
        if self.keep:
            self.kept.append(answer.partition(_HEAD_END)[2])


class Connection(asyncio.Protocol):
    """One connection: sends a request, takes the whole answer, sends the next."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._answer = bytearray()
        self._sent = self._first_byte = self._first_body = 0.0
        self._body_at = -1
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._answer:
            self._first_byte = now
        self._answer += data
        if self._body_at < 0:
            found = self._answer.find(_HEAD_END)
            if found < 0:
                return
            self._body_at = found + len(_HEAD_END)
        if not self._first_body and len(self._answer) > self._body_at:
            self._first_body = now
        if self._is_whole():
            self._run.note(bytes(self._answer), self._sent, self._first_byte, self._first_body)
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self._run.wrong["connection lost"] += 1
            self.done.set_result(None)

    def _send(self) -> None:
        self._answer.clear()
        self._body_at, self._first_body = -1, 0.0
        request = self._run.next()
        if request is None:
            if not self.done.done():
                self.done.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def _is_whole(self) -> bool:
        head = self._answer[: self._body_at].lower()
        at = head.find(_LENGTH)
        if at < 0:
            return self._answer.endswith(_CHUNKED_END)
        end = head.index(b"\r", at)
        return len(self._answer) - self._body_at >= int(head[at + len(_LENGTH) : end])


async def handle(request: Request) -> Answer:
    """Send requests from so many connections for so long, and tell how it went."""
    run = Run(request)
    loop = asyncio.get_running_loop()
    cpu, began = time.process_time(), time.perf_counter()
    connections = [
        await loop.create_connection(lambda: Connection(run), "127.0.0.1", request["port"])
        for _ in range(request["connections"])
    ]
    await asyncio.gather(*(protocol.done for _, protocol in connections))
    took, used = time.perf_counter() - began, time.process_time() - cpu
    return {
        "rate": len(run.latencies) / took,
        "answers": len(run.latencies),
        "p50": quantile(run.latencies, 0.5),
        "p99": quantile(run.latencies, 0.99),
        "first_byte_p50": quantile(run.first_bytes, 0.5),
        "first_byte_p99": quantile(run.first_bytes, 0.99),
        "first_body_p50": quantile(run.first_bodies, 0.5),
        "first_body_p99": quantile(run.first_bodies, 0.99),
        "client_busy": used / took,
        "wrong": dict(run.wrong),
        "kept": [(made["userId"], made["id"]) for made in map(json.loads, run.kept)],
    }


def _encode(method: str, path: str, body: Any) -> bytes:
    if body is None:
        return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    content = json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


if __name__ == "__main__":
    answer_requests(handle)
