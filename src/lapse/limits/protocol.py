"""uvicorn's HTTP protocol, bounded where it is not: before a request has become one.

Below ASGI uvicorn (0.54, with httptools) waits for a request's headers for ever, takes any
number of bytes of them, and appends the trailers of a chunked body to the headers of the
request that is being answered, where they pass for what a proxy has set.

`uvicorn.Config` takes a class for `http`, so a protocol of one's own is provided for; its methods
are the callbacks of asyncio and httptools. That uvicorn's class has them, and the attributes that
are read here, is checked by `tests/adk/test_adk_private.py`.
"""

from __future__ import annotations

import asyncio
import http
import json
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lapse.limits.rules import LARGEST_HEAD, LARGEST_TARGET, Bounds

_LONG_TARGET: Final = f"path: must be at most {LARGEST_TARGET} bytes with its query"


class BoundedProtocol(HttpToolsProtocol):
    """Bounds what comes before and around a request; `bounded` makes one for a server."""

    bounds: ClassVar[Bounds] = Bounds()
    idle: ClassVar[dict[BoundedProtocol, None]] = {}
    """Connections with no request on them, the one that has waited longest first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._awaits_head = True
        self._unparsed = 0
        self._heard = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; make room where there is none."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections and not self._made_room():
            self._refuse(503, "too many connections; try again in a moment")
            return
        self._wait()
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._done_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what makes neither headers nor a body."""
        self._heard = True
        self._unparsed += len(data)
        if self._awaits_head:
            self._arm()
        super().data_received(data)
        if self._unparsed > LARGEST_HEAD and not self.transport.is_closing():
            if self._awaits_head and not self.headers:
                self._refuse(414, _LONG_TARGET)
            else:
                self._refuse(431, f"headers: must be at most {LARGEST_HEAD} bytes together")

    def on_message_begin(self) -> None:
        """Count from here."""
        super().on_message_begin()
        self._unparsed = 0
        self._head_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but not a trailer."""
        if not self._head_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        if len(self.url) > LARGEST_TARGET:
            self._refuse(414, _LONG_TARGET)
            raise ValueError(_LONG_TARGET)  # the parser stops
        self._head_complete = True
        self._done_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body: what came was worth its bytes."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Count what follows from here."""
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, unless it is here already."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._wait()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket."""
        self._done_waiting()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def give_way(self) -> None:
        """Close the connection, on which there is no request."""
        self._done_waiting()
        self.transport.close()

    def _wait(self) -> None:
        self._awaits_head = True
        self._heard = False
        self.idle[self] = None

    def _arm(self) -> None:
        if self._head_timer is None:
            seconds = self.bounds.head_time.total_seconds()
            self._head_timer = self.loop.call_later(seconds, self._too_late)

    def _done_waiting(self) -> None:
        self._awaits_head = False
        self.idle.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_late(self) -> None:
        if self._heard:
            seconds = self.bounds.head_time.total_seconds()
            self._refuse(408, f"headers: did not arrive within {seconds:g} seconds")
        else:
            self.transport.close()

    def _made_room(self) -> bool:
        for waiting in self.idle:
            waiting.give_way()
            return True
        return False

    def _refuse(self, status: int, detail: str) -> None:
        """Answer, unless that would be in the middle of another answer, and close."""
        self._done_waiting()
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            body = json.dumps({"detail": detail}).encode()
            head = (
                f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
                "content-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        if cycle is not None:
            # Whoever answers the request has nobody to answer any more.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()


def bounded(bounds: Bounds) -> type[BoundedProtocol]:
    """Return the protocol of one server: what `uvicorn.Config` takes for `http`."""
    return type("BoundedProtocol", (BoundedProtocol,), {"bounds": bounds, "idle": {}})
