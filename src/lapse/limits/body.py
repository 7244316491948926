"""The middleware that reads a request's body: under bounds, once, for all who need it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.core.request import BODY, Body, body_of, fields_of, route_path
from lapse.limits.documents import read_document
from lapse.limits.head import answer, length_of
from lapse.limits.rules import SMALL_BODY, Bounds, Fault, fault_of_document, is_document

__all__ = ["BodyMiddleware", "body_of", "fields_of", "hold_body"]

_HELD: Final = "lapse.held"
"""Where a request's scope has the memory that its body holds."""


class BodyMiddleware:
    """Reads a body whole, measures it, and parses it if its route takes JSON.

    What stands behind it finds the `Body` in the scope (`body_of`, `fields_of`), and receives the
    bytes once more. Refused are a body that is too large (413) or too slow (408), JSON that is too
    large, too deep or no UTF-8 (413, 400), and fields that no route should have to look at; see
    `rules.py` and `documents.py`. Invalid JSON is left to the route.

    The bytes of large bodies are counted until their requests end, and whatever else `hold_body`
    was called for: for all callers together (503 beyond `Bounds.bodies`) and for each (429 beyond
    `Bounds.share`). A body of at most SMALL_BODY bytes is not counted, so it never waits for large
    ones.

    It stands behind whatever finds out who asks: of a caller whom nobody knows nothing is read.

    Args:
        app: what the request is passed on to.
        bounds: what the settings allow.
        caller: names whose request is being handled; None: all memory is theirs, up to the
            bound for all.
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
        if length is not None and length > largest:
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
        self, scope: Scope, path: str, receive: Receive, largest: int, held: Held
    ) -> Body | Fault | None:
        """Return the body, or what is wrong with it; None where the client has gone."""
        try:
            async with asyncio.timeout(self._bounds.body_time.total_seconds()):
                raw = await _arrived(receive, largest, held)
        except TimeoutError:
            seconds = self._bounds.body_time.total_seconds()
            return Fault(408, f"body: did not arrive within {seconds:g} seconds")
        if not isinstance(raw, bytes):
            return raw
        if not raw or not is_document(path, _type_of(scope)):
            return Body(raw)
        if len(raw) <= SMALL_BODY:
            return self._document(path, raw)
        # Each step of it stops the loop for as long as it takes, but not for all of them together.
        return await asyncio.to_thread(self._document, path, raw)

    def _document(self, path: str, raw: bytes) -> Body | Fault:
        body = read_document(raw)
        if isinstance(body, Fault) or body.error is not None:
            return body
        return fault_of_document(path, body, self._bounds) or body


def hold_body(scope: Scope) -> Callable[[], None]:
    """Have the bytes of a request's body counted beyond its end; return what ends that.

    Call it before the request ends, and what it returns once.
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
        """Count bytes, which `take` forgets; or count nothing and return why there is no room."""
        of_caller = 0 if caller is None else self._of_caller[caller] + size
        if of_caller > self._bounds.share:
            return Fault(429, "your other large requests are at work; try again in a moment")
        if self._of_all + size > self._bounds.bodies:
            return Fault(503, "too many large requests are at work; try again in a moment")
        self._of_all += size
        if caller is not None:
            self._of_caller[caller] = of_caller
        return None

    def take(self, caller: str | None, size: int) -> None:
        """Forget bytes that were counted."""
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
    """What one request has of the memory for large bodies, until all who hold it release it."""

    def __init__(self, memory: Memory, caller: str | None) -> None:
        self._memory = memory
        self._caller = caller
        self._size = 0
        self._holders = 1

    def grow(self, size: int) -> Fault | None:
        """Hold a body of this size in all; return why there is no room for it."""
        if size <= SMALL_BODY:
            return None
        fault = self._memory.add(self._caller, size - self._size)
        if fault is None:
            self._size = size
        return fault

    def hold(self) -> None:
        """Have one more holder."""
        self._holders += 1

    def release(self) -> None:
        """Have one holder less; give it back after the last."""
        self._holders -= 1
        if not self._holders and self._size:
            self._memory.take(self._caller, self._size)


async def _arrived(receive: Receive, largest: int, held: Held) -> bytes | Fault | None:
    """Return a body once it is whole; None where the client has gone."""
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > largest:
            return _too_large(largest)
        if fault := held.grow(size):
            return fault
        chunks.append(chunk)
    # Of one chunk this makes no copy.
    return b"".join(chunks)


def _type_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return str(value.decode("latin-1"))
    return ""


def _too_large(largest: int) -> Fault:
    return Fault(413, f"body: must be at most {largest} bytes here")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once, and then what else comes."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
