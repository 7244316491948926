"""uvicorn's HTTP protocol, bounded where it is not: before a request, and after its answer.

Below ASGI uvicorn (0.54, with httptools) waits for a request's headers for ever, takes any
number of bytes of them, and appends the trailers of a chunked body to the headers of the
request that is being answered, where they pass for what a proxy has set. It also waits for ever
for a reader to take an answer.

`uvicorn.Config` takes a class for `http`, so a protocol of one's own is provided for; its methods
are the callbacks of asyncio and httptools. That uvicorn's class has them, and the attributes that
are read here, is checked by `tests/adk/test_adk_private.py`.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lapse.core.arguments import check
from lapse.core.log_rate import LogRateLimit
from lapse.limits.rules import LARGEST_HEAD, LARGEST_TARGET, Bounds
from lapse.limits.unread import LET_GO, Unread, abort

_LOG_RATE: Final = LogRateLimit()
_LONG_TARGET: Final = f"path: must be at most {LARGEST_TARGET} bytes with its query"


class BoundedProtocol(HttpToolsProtocol):
    """Bounds what comes before, around and after a request; `bounded` makes one for a server."""

    bounds: ClassVar[Bounds] = Bounds()
    idle: ClassVar[dict[BoundedProtocol, None]] = {}
    """Connections with no request on them and nothing unread, the longest idle first."""

    unread: ClassVar[Unread] = Unread(bounds)
    websockets: ClassVar[dict[type, type]] = {}
    """What WebSockets are served with, by the class that uvicorn would take."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._awaits_head = True
        self._unparsed = 0
        self._heard = False
        self._answered: RequestResponseCycle | None = None
        """The request that is being answered: uvicorn's `cycle` is the one that came last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; make room where there is none."""
        super().connection_made(transport)
        # `pause_writing` is called as soon as a byte is not taken.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.bounds.connections and not self._made_room():
            self._refuse(503, "too many connections; try again in a moment")
            return
        self._wait()
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more, and tell the request that is being answered, too."""
        self._done_waiting()
        self.unread.discard(self.transport)
        super().connection_lost(exc)
        self._disconnect()

    def pause_writing(self) -> None:
        """Watch the connection: its reader has not taken everything."""
        super().pause_writing()
        self.unread.add(self.transport)
        self.idle.pop(self, None)

    def resume_writing(self) -> None:
        """Watch it no more; it is idle once its last answer has been read."""
        super().resume_writing()
        self.unread.discard(self.transport)
        if self._awaits_head and not self.transport.is_closing():
            self.idle[self] = None

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
        extensions: Any = {LET_GO: self.let_go}
        self.scope["extensions"] = extensions
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
        if not self.pipeline:
            self._answered = self.cycle

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
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if following is not None:
            self._answered = following
        if self.cycle.response_complete and not self.transport.is_closing():
            self._wait()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket, unless an earlier request is being answered.

        Its answer would never hear that the reader has left, for the WebSocket hears of it.
        """
        if self._answered is not None and not self._answered.response_complete:
            self._refuse(
                400, "a WebSocket must not be requested before the previous answer is complete"
            )
            return
        self._done_waiting()
        kind: Any = self.config.ws_protocol_class
        if kind not in self.websockets:
            self.websockets[kind] = _watched(kind, self.unread)
        self.ws_protocol_class = self.websockets[kind]
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def give_way(self) -> None:
        """Close the connection, on which there is no request."""
        self._done_waiting()
        self.transport.close()

    def let_go(self) -> None:
        """Abort the connection, whose reader was too slow; nothing happens once it is closed."""
        if self in self.connections:
            abort(self.transport)

    def _wait(self) -> None:
        self._awaits_head = True
        self._heard = False
        if not self.flow.write_paused:
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
        """Close one connection: one whose reader seems gone, an idle one, or one with a reader."""
        if self.unread.make_room(at_once=False):
            return True
        for waiting in self.idle:
            waiting.give_way()
            return True
        return self.unread.make_room(at_once=True)

    def _refuse(self, status: int, detail: str) -> None:
        """Answer, unless that would be in the middle of another answer, and close."""
        self._done_waiting()
        if self.transport.is_closing():
            return
        answered = self._answered
        if answered is None or answered.response_complete or not answered.response_started:
            body = json.dumps({"detail": detail}).encode()
            head = (
                f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
                "content-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self._disconnect()
        self.transport.close()

    def _disconnect(self) -> None:
        """Tell whoever answers a request that there is nobody to answer any more."""
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()
            self.flow.resume_writing()


def _watched(kind: Any, unread: Unread) -> type:
    """Return a class of WebSockets whose unread bytes are watched as those of requests are."""

    # uvicorn has three of them.
    class WatchedWebSocket(kind):  # type: ignore[misc]
        def pause_writing(self) -> None:
            super().pause_writing()
            unread.add(self.transport)

        def resume_writing(self) -> None:
            super().resume_writing()
            unread.discard(self.transport)

        def connection_lost(self, exc: Exception | None) -> None:
            unread.discard(self.transport)
            super().connection_lost(exc)

    return WatchedWebSocket


def bounded(bounds: Bounds = Bounds()) -> type[BoundedProtocol]:
    """Return the protocol of one server: what `uvicorn.Config` takes for `http`.

    It bounds how long a request's line and headers take, how large they are, how many connections
    there are, and how long and how much their readers, those of WebSockets included, leave unread.
    """
    check(bounds=(bounds, Bounds))
    # uvicorn has a line for each request that is none.
    logging.getLogger("uvicorn.error").addFilter(_LOG_RATE)
    own = {"bounds": bounds, "idle": {}, "unread": Unread(bounds), "websockets": {}}
    return type("BoundedProtocol", (BoundedProtocol,), own)
