"""The connections of one server whose readers do not read: they are aborted.

A connection has unread bytes while its transport holds bytes that the network does not take. Its
transport has a high-water mark of 0, so asyncio calls `pause_writing` when the first byte is held
and `resume_writing` when the last one has left. Nothing is written between the two but answers to
the pings of a WebSocket, so a reader has made progress when fewer bytes are held than before.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from lapse.core.log_rate import LogRateLimit
from lapse.limits.rules import Bounds

LET_GO: Final = "lapse.let_go"
"""The ASGI extension, a function without arguments, with which an application aborts a request's
connection. A server that has it lets go of whoever does not read by itself."""

_LONGEST_LOOK: Final = timedelta(seconds=1)
_LOOKS: Final = 4
"""A connection without progress is looked at this often, at least, before it is aborted."""

_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: the kernel throws away what it has not sent, and the reader sees a reset."""

_log = logging.getLogger(__name__)
_log.addFilter(LogRateLimit())


@dataclass(slots=True)
class _Held:
    """How many bytes a transport held at the last look, and the time of the last progress."""

    size: int
    since: float


class Unread:
    """Connections with unread bytes, the one without progress for longest first.

    A connection is aborted when it has made no progress for `bounds.write_time`,
    when more than `bounds.unread` bytes are held in all, and when another connection needs its
    room. The newest of several stays, so that an answer may be larger than the bound.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._patience = bounds.write_time.total_seconds()
        self._pause = min(self._patience / _LOOKS, _LONGEST_LOOK.total_seconds())
        self._most = bounds.unread
        self._held: dict[asyncio.Transport, _Held] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.size = 0

    def add(self, transport: asyncio.Transport) -> None:
        """Watch a connection from now on: bytes are held."""
        loop = asyncio.get_running_loop()
        held = self._held[transport] = _Held(transport.get_write_buffer_size(), loop.time())
        self.size += held.size
        self._keep_within()
        if self._timer is None:
            self._timer = loop.call_later(self._pause, self._look, loop)

    def discard(self, transport: asyncio.Transport) -> None:
        """Stop watching a connection: all its bytes were taken, or it is closed."""
        held = self._held.pop(transport, None)
        if held is not None:
            self.size -= held.size

    def make_room(self, *, at_once: bool) -> bool:
        """Let one connection go; return whether there was one.

        Without `at_once` it is one that has made no progress for two looks, of which the reader
        may be gone; otherwise it may be one whose reader is only slower than the server.
        """
        if not self._held:
            return False
        transport, held = next(iter(self._held.items()))
        waited = asyncio.get_running_loop().time() - held.since
        if not at_once and waited < 2 * self._pause:
            return False
        self._let_go(transport)
        return True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for transport, held in list(self._held.items()):
            size = transport.get_write_buffer_size()
            self.size += size - held.size
            if size < held.size:
                del self._held[transport]
                self._held[transport] = _Held(size, now)
            else:
                held.size = size
                if now - held.since >= self._patience:
                    self._let_go(transport)
        self._keep_within()
        self._timer = loop.call_later(self._pause, self._look, loop) if self._held else None

    def _keep_within(self) -> None:
        while self.size > self._most and len(self._held) > 1:
            self._let_go(next(iter(self._held)))

    def _let_go(self, transport: asyncio.Transport) -> None:
        self.discard(transport)
        _log.info("a connection was aborted: its reader did not read")
        abort(transport)


def abort(transport: asyncio.Transport) -> None:
    """Close a connection now, and throw away what its reader has not read.

    `close` would wait until everything was read, which may be for ever.
    """
    its_socket = transport.get_extra_info("socket")
    if its_socket is not None:
        with suppress(OSError):
            its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()


def let_go_of(scope: Mapping[str, Any]) -> Callable[[], None] | None:
    """Return the extension LET_GO of a request; None: its server has none."""
    let_go: Callable[[], None] | None = scope.get("extensions", {}).get(LET_GO)
    return let_go
