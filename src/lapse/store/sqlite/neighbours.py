"""How the workers of one server tell each other of changes: SQLite notifies nobody.

Each listener has a datagram socket in a folder that the workers share, and a text is sent to every
socket of its channel. A text is a hint: where a socket is full, or cannot be made, it is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_LARGEST = 8192
_folders: list[Path] = []
"""The folder, once this process is a worker."""

_log = logging.getLogger(__name__)


def meet_in(folder: Path) -> None:
    """Tell the workers that use a folder of changes from now on, and hear of theirs."""
    _folders[:] = [folder]


def place(name: str) -> Path | None:
    """Return a path that all workers of this server share; None outside a worker."""
    return _folders[0] / name if _folders else None


@asynccontextmanager
async def listen(channel: str, hear: Callable[[str], None]) -> AsyncIterator[None]:
    """Call `hear` with what is sent to a channel, inside the context; a no-op outside a worker."""
    if not _folders:
        yield
        return
    place = _folders[0] / f"{channel}-{os.getpid()}-{secrets.token_hex(2)}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.setblocking(False)
        try:
            listener.bind(str(place))
        except OSError as error:
            _log.warning("other workers' changes are heard of with the next heartbeat: %s", error)
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, _take, listener, hear)
        try:
            yield
        finally:
            loop.remove_reader(listener)
            place.unlink(missing_ok=True)


def _take(listener: socket.socket, hear: Callable[[str], None]) -> None:
    with suppress(BlockingIOError):
        while text := listener.recv(_LARGEST):
            hear(text.decode())


def notify(channel: str, texts: Iterable[str]) -> None:
    """Send texts to all who listen to a channel; it never waits."""
    if not _folders:
        return
    encoded = [text.encode() for text in texts]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for place in _folders[0].glob(f"{channel}-*.sock"):
            try:
                for text in encoded:
                    sender.sendto(text, str(place))
            except BlockingIOError:
                continue
            except OSError:  # nobody listens there any more: the worker was killed
                place.unlink(missing_ok=True)
