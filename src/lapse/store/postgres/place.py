"""The right to a connection to PostgreSQL, and connections that outlive their event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final
from weakref import WeakSet

import asyncpg

from lapse.core.forks import Forked

PARTING: Final = timedelta(milliseconds=100)
"""How long a connection has to end a statement that nobody waits for, and a pool to close. Then
they are cut off: a server that is silent must not hold up the end of a process."""


class Connection(asyncpg.Connection):
    """A connection that knows its transport."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        self.transport = transport
        _made.add(self)


_made: WeakSet[Connection] = WeakSet()
inherited: Final[list[object]] = []
"""What a child process has of its parent's connections. Nothing in it may be collected, because
that would use the parent's sockets and event loops."""


class _Inheritance(Forked):
    """Closes a child's copies of its parent's sockets, without a word to the server."""

    def after_fork_in_child(self) -> None:
        for connection in _made:
            inherited.append(connection)
            with suppress(OSError):
                os.close(_socket_of(connection.transport).fileno())
        _made.clear()


_inheritance: Final = _Inheritance()
_inheritance.survive_forks()


class Place:
    """The right to one connection, on one event loop, and the connection if there is one."""

    __slots__ = ("_leaving", "connection", "idle_since", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.connection: Connection | None = None
        self.idle_since = 0.0
        self._leaving: socket.socket | None = None
        """The socket of a connection that was cut, until the server has closed its side."""

    @property
    def is_usable(self) -> bool:
        """Return whether it has an open connection."""
        return self.connection is not None and not self.connection.is_closed()

    def move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cut the connection, and give the place to another event loop."""
        if self.connection is not None:
            self._leaving = _shut_down(self.connection.transport)
        self.cut()
        self.loop = loop

    async def left(self) -> None:
        """Wait a moment until the server has ended the connection that was here before."""
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            with leaving, suppress(OSError, TimeoutError):
                async with asyncio.timeout(PARTING.total_seconds()):
                    while await asyncio.get_running_loop().sock_recv(leaving, 1024):
                        pass

    async def part(self) -> None:
        """Close the connection, and return once the server has ended it, or a moment later.

        The connection of another loop is cut; that of the running loop is closed with a word to the
        server.
        """
        here, connection = asyncio.get_running_loop(), self.connection
        if self.loop is not here or connection is None:
            self.move(here)
            await self.left()
            return
        try:
            await connection.close(timeout=PARTING.total_seconds())
        finally:
            self.cut()

    def cut(self) -> None:
        """Close the connection at once, from any thread, whatever its event loop does."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self.loop is loop_here():
            connection.terminate()
        elif self.loop.is_closed():
            with suppress(RuntimeError):  # it wants to call the loop
                connection.terminate()
            _close(connection.transport)
        else:
            # That loop may stand still. The server is told now, and the loop when it goes on.
            if (same := _shut_down(connection.transport)) is not None:
                same.close()
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self.loop.call_soon_threadsafe(connection.terminate)


def loop_here() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs on this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _shut_down(transport: asyncio.Transport) -> socket.socket | None:
    """Tell the server that the connection is over; return a copy of its socket, if it is open."""
    try:
        same = socket.socket(fileno=os.dup(_socket_of(transport).fileno()))
    except OSError:
        return None
    same.setblocking(False)
    with suppress(OSError):
        same.shutdown(socket.SHUT_WR)
    return same


def _close(transport: asyncio.Transport) -> None:
    """Close the socket of a transport whose loop is closed and can do it no more."""
    # asyncio gives its sockets away without a way to close them.
    inner = getattr(_socket_of(transport), "_sock", None)
    if inner is not None:
        inner.close()


def _socket_of(transport: asyncio.Transport) -> Any:
    return transport.get_extra_info("socket")
