"""The middleware that reads a request's body: under bounds, once, for all who need it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.core.request import BODY, Body, route_path
from lapse.limits.documents import read_document
from lapse.limits.head import answer, length_of
from lapse.limits.rules import (
    SMALL_BODY,
    Bound,
    Bounds,
    Fault,
    fault_of_document,
    is_document,
    too_large,
)

_HELD: Final = "lapse.held"
"""Where a request's scope has the memory that its body holds."""


class BodyMiddleware:
    """Reads a body whole, measures it, and parses it if its route takes JSON.

    The next layers find the `Body` in the scope (`core/request.py`), and receive the bytes
    again. It refuses a body that is too large (413) or too slow (408), JSON that is too large, too
    deep or not UTF-8 (413, 400), and fields that are too large for their route (`rules.py`). It
    leaves invalid JSON to the route.

    It counts the bytes of large bodies until their requests end, or longer if `hold_body` was
    called: of all callers together (503 beyond `Bounds.bodies`) and of each (429 beyond
    `Bounds.share`). It does not count bodies of at most SMALL_BODY bytes, so these never wait for
    large ones.

    It comes after authentication, so it reads nothing of a caller who is refused there.

    Args:
        app: the next layer.
        bounds: the bounds that the settings choose.
        caller: returns the name of the caller of this request; None: only the bound for all
            callers applies.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        bounds: Bounds = Bounds(),
        caller: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._app = app
        self._bounds = bounds
        self._caller = caller
        self._memory = Memory(bounds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body read, or refuse it."""
        if scope["type"] != "http" or (length := length_of(scope["headers"])) == 0:
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        largest = self._bounds.largest(scope["method"], path)
        if length is not None and length > largest.size:
            await answer(_too_large(largest), send)
            return
        held = Held(self._memory, self._caller())
        try:
            read = await self._read(scope, path, receive, largest, held)
            if isinstance(read, Body):
                scope[BODY], scope[_HELD] = read, held
                await self._app(scope, _replay(read.raw, receive), send)
        finally:
            # A server may keep the scope until the connection's next request.
            scope.pop(BODY, None)
            scope.pop(_HELD, None)
            held.release()
        if isinstance(read, Fault):
            await answer(read, send)

    async def _read(
        self, scope: Scope, path: str, receive: Receive, largest: Bound, held: Held
    ) -> Body | Fault | None:
        """Return the body, or what is wrong with it; None if the client has disconnected."""
        try:
            async with asyncio.timeout(self._bounds.body_time.total_seconds()):
                raw = await _arrived(receive, largest, held)
        except TimeoutError:
            seconds = self._bounds.body_time.total_seconds()
            return Fault(408, f"body: must arrive within {seconds:g} seconds (LAPSE_BODY_SECONDS)")
        if not isinstance(raw, bytes):
            return raw
        if not raw or not is_document(path, _type_of(scope)):
            return Body(raw)
        if len(raw) <= SMALL_BODY:
            return self._document(path, raw)
        # Python's lock is held within each step, but the loop has its turn between them.
        return await asyncio.to_thread(self._document, path, raw)

    def _document(self, path: str, raw: bytes) -> Body | Fault:
        body = read_document(raw)
        if isinstance(body, Fault) or body.error is not None:
            return body
        return fault_of_document(path, body, self._bounds) or body


def hold_body(scope: Scope) -> Callable[[], None]:
    """Count the bytes of a request's body until the function that this returns is called.

    It must be called before the request ends.
    """
    held: Held | None = scope.get(_HELD)
    if held is None:
        return lambda: None
    held.hold()
    return held.release


class Memory:
    """The bytes of large bodies that are in memory: of all requests, and of each caller."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._of_all = 0
        self._of_caller: Counter[str] = Counter()

    def add(self, caller: str | None, size: int) -> Fault | None:
        """Count bytes until `take`; if there is no room, count nothing and return the fault."""
        of_caller = 0 if caller is None else self._of_caller[caller] + size
        if of_caller > self._bounds.share:
            return Fault(
                429, "your other large requests are still in progress; try again in a moment"
            )
        if self._of_all + size > self._bounds.bodies:
            return Fault(503, "too many large requests are in progress; try again in a moment")
        self._of_all += size
        if caller is not None:
            self._of_caller[caller] = of_caller
        return None

    def take(self, caller: str | None, size: int) -> None:
        """Count bytes no longer."""
        self._of_all -= size
        if caller is not None:
            self._of_caller[caller] -= size
            if not self._of_caller[caller]:
                del self._of_caller[caller]

    @property
    def held(self) -> int:
        """Return how many bytes are counted now."""
        return self._of_all


class Held:
    """The memory of one request's body, which is counted until its last holder releases it."""

    def __init__(self, memory: Memory, caller: str | None) -> None:
        self._memory = memory
        self._caller = caller
        self._size = 0
        self._holders = 1

    def grow(self, size: int) -> Fault | None:
        """Count a body that has this size so far; return the fault if there is no room."""
        if size <= SMALL_BODY:
            return None
        fault = self._memory.add(self._caller, size - self._size)
        if fault is None:
            self._size = size
        return fault

    def hold(self) -> None:
        """Add a holder."""
        self._holders += 1

    def release(self) -> None:
        """Remove a holder."""
        self._holders -= 1
        if not self._holders and self._size:
            self._memory.take(self._caller, self._size)


async def _arrived(receive: Receive, largest: Bound, held: Held) -> bytes | Fault | None:
    """Return a body once it is whole; None if the client has disconnected."""
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > largest.size:
            return _too_large(largest)
        if fault := held.grow(size):
            return fault
        chunks.append(chunk)
    # A single chunk is not copied.
    return b"".join(chunks)


def _type_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return str(value.decode("latin-1"))
    return ""


def _too_large(largest: Bound) -> Fault:
    return too_large(f"body: must be at most {largest.size} bytes here", largest.setting)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once, and then what else comes."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
