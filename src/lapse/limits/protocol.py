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
from lapse.core.request import KNOWN
from lapse.limits.crowds import Crowds
from lapse.limits.head import length_of
from lapse.limits.rules import LARGEST_HEAD, LARGEST_TARGET, Bounds
from lapse.limits.turns import Turns
from lapse.limits.unread import LET_GO, Unread, abort

_LOG_RATE: Final = LogRateLimit()
Idle = tuple[dict["BoundedProtocol", None], dict["BoundedProtocol", None]]

_HEAD_END: Final = b"\r\n\r\n"
_PIECE: Final = 8 * 1024
"""Bytes of a body of unknown length that are parsed at once; requests may follow it."""

_LONG_TARGET: Final = f"path: must be at most {LARGEST_TARGET} bytes with its query"


class BoundedProtocol(HttpToolsProtocol):
    """Bounds what comes before, around and after a request; `bounded` makes one for a server."""

    bounds: ClassVar[Bounds] = Bounds()
    idle: ClassVar[Idle] = ({}, {})
    """Connections with no request on them and nothing unread, the longest idle first: those of
    strangers, and those of users."""

    unread: ClassVar[Unread] = Unread(bounds)
    turns: ClassVar[Turns] = Turns()
    crowds: ClassVar[Crowds] = Crowds()
    websockets: ClassVar[dict[type, type]] = {}
    """The classes that serve WebSockets, by the class that uvicorn would take."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._awaits_head = True
        self._unparsed = 0
        self._heard = False
        self._is_known = False
        self._parses = True
        self._later = b""
        """What came behind a request that is being answered; it is parsed after the answer."""

        self._body_left: int | None = None
        """Bytes that are left of a body; None: of a body, it is not known."""

        self._next_request: tuple[RequestResponseCycle, Any] | None = None
        """A stranger's request that waits for its turn, and the application that answers it."""

        self._answered: RequestResponseCycle | None = None
        """The request that is being answered: uvicorn's `cycle` is the one that came last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; make room where there is none."""
        super().connection_made(transport)
        self.crowds.note(len(self.connections))
        # `pause_writing` is called as soon as a byte is not taken.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.bounds.connections and not self._made_room():
            self._refuse(503, "too many connections; try again in a moment")
            return
        self._wait()
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all waiting, and tell the request that is being answered, too."""
        self._done_waiting()
        self.unread.discard(self.transport)
        self.turns.discard(self, self._address)
        super().connection_lost(exc)
        self._disconnect()
        self._forget_requests()

    def pause_writing(self) -> None:
        """Watch the connection: its reader has not taken everything."""
        super().pause_writing()
        self.unread.add(self.transport)
        self.idle[self._is_known].pop(self, None)

    def resume_writing(self) -> None:
        """Stop watching the connection; it is idle once its last answer has been read."""
        super().resume_writing()
        self.unread.discard(self.transport)
        if self._awaits_head and not self.transport.is_closing():
            self.idle[self._is_known][self] = None

    def data_received(self, data: bytes) -> None:
        """Parse bytes; refuse too many that make neither headers nor a body.

        One request is parsed at a time: the next one waits, unparsed, for its answer. So of a
        client that sends thousands of requests at once the server parses as many as it reads
        answers.
        """
        self._heard = True
        data = self._later + data if self._later else data
        self._later = b""
        while data and not self.transport.is_closing() and self._parses:
            if self._is_answering():
                self._later = data
                if len(data) > LARGEST_HEAD:
                    self.flow.pause_reading()
                return
            size = self._first_of(data)
            piece, data = data[:size], data[size:]
            self._parse(piece)

    def _first_of(self, data: bytes) -> int:
        """Return how many bytes to parse: those of a head, or of one body."""
        if self._awaits_head:
            end = data.find(_HEAD_END)
            return len(data) if end < 0 else end + len(_HEAD_END)
        if self._body_left is None:
            return _PIECE
        return self._body_left or len(data)

    def _is_answering(self) -> bool:
        """Return whether a request has arrived whole, and its answer is not complete."""
        answered = self._answered
        return not (answered is None or answered.response_complete or answered.more_body)

    def _parse(self, data: bytes) -> None:
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
        """Count unparsed bytes from here."""
        super().on_message_begin()
        extensions: Any = {LET_GO: self.let_go, KNOWN: self.know}
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
        self._body_left = length_of(self.headers)
        super().on_headers_complete()
        if not self.pipeline:
            self._answered = self.cycle

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; the bytes before it no longer count as unparsed."""
        self._unparsed = 0
        if self._body_left is not None:
            self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Count unparsed bytes from here."""
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, unless it is here already."""
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if following is not None:
            self._answered = following
        if not self.transport.is_closing() and self.cycle.response_complete:
            self._wait()
            if self._later:
                self.data_received(b"")

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket, unless an earlier request is being answered.

        That request would never hear that its reader has left: only the WebSocket is told.
        """
        if self._answered is not None and not self._answered.response_complete:
            self._refuse(
                400, "a WebSocket must not be requested before the previous answer is complete"
            )
            return
        self._done_waiting()
        self._parses = False
        kind: Any = self.config.ws_protocol_class
        if kind not in self.websockets:
            self.websockets[kind] = _watched(kind, self.unread)
        self.ws_protocol_class = self.websockets[kind]
        super().handle_websocket_upgrade()
        self._forget_requests()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def give_way(self) -> None:
        """Close the connection, on which no request is being answered."""
        self._done_waiting()
        self.transport.close()

    def let_go(self) -> None:
        """Abort the connection, whose reader was too slow; nothing happens once it is closed."""
        if self in self.connections:
            abort(self.transport)

    def know(self) -> None:
        """Count the connection as a user's: the caller of the request on it is known."""
        self._is_known = self.turns.has_callers = True

    def begin(self) -> bool:
        """Begin the stranger's request whose turn has come; False if the connection is closed."""
        if self._next_request is None or self.transport.is_closing():
            return False
        (cycle, app), self._next_request = self._next_request, None
        super()._start_asgi_task(cycle, app)
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._is_known:
            super()._start_asgi_task(cycle, app)
        else:
            self._next_request = cycle, app
            self.turns.take(self, self._address)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _wait(self) -> None:
        self._awaits_head = True
        self._heard = False
        if not self.flow.write_paused:
            self.idle[self._is_known][self] = None

    def _arm(self) -> None:
        if self._head_timer is None:
            seconds = self.bounds.head_time.total_seconds()
            self._head_timer = self.loop.call_later(seconds, self._too_late)

    def _done_waiting(self) -> None:
        self._awaits_head = False
        self.idle[self._is_known].pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_late(self) -> None:
        if self._heard:
            seconds = self.bounds.head_time.total_seconds()
            self._refuse(
                408, f"headers: must arrive within {seconds:g} seconds (LAPSE_HEADER_SECONDS)"
            )
        else:
            self.transport.close()

    def _made_room(self) -> bool:
        """Close one connection; return False if each has a request of a user's on it.

        The first is one whose reader seems gone. Strangers' come next: an idle one, and one that
        waits for its turn. Users' come last: an idle one, and one whose reader is slow.
        """
        strangers, users = self.idle
        return (
            self.unread.make_room(at_once=False)
            or _gave_way(strangers)
            or self.turns.make_room()
            or _gave_way(users)
            or self.unread.make_room(at_once=True)
        )

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

    def _forget_requests(self) -> None:
        """Let go of what refers to this object, which is then freed at once.

        Thousands of closed connections that wait for the garbage collector make its stops long.
        """
        nothing: Any = None
        self._unset_keepalive_if_required()  # which uvicorn leaves after a reset
        self.scope = self.cycle = self.parser = nothing
        self._answered = self._next_request = None

    def _disconnect(self) -> None:
        """Tell whoever answers a request that there is nobody to answer any more."""
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()
            self.flow.resume_writing()


def _gave_way(idle: dict[BoundedProtocol, None]) -> bool:
    """Close the connection that has been idle for longest, if there is one."""
    for waiting in idle:
        waiting.give_way()
        return True
    return False


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
    own = {
        "bounds": bounds,
        "idle": ({}, {}),
        "unread": Unread(bounds),
        "turns": Turns(),
        "crowds": Crowds(),
        "websockets": {},
    }
    return type("BoundedProtocol", (BoundedProtocol,), own)
