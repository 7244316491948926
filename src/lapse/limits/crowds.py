"""What a crowd of connections leaves in a server once it has gone."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

_CROWD: Final = 1_000
"""So many connections make a crowd. Each takes about 7 KiB."""

_GONE: Final = 10
"""A crowd has gone when fewer than one in so many of its connections are left."""


def heap_trim() -> Callable[[], object]:
    """Return what gives free memory back to the operating system, blocking; a no-op without glibc.

    glibc keeps what was freed below the end of its heap until `malloc_trim` is called.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return lambda: None
    return lambda: trim(0)


class Crowds:
    """Notes how many connections there were, and gives memory back when a crowd has gone.

    Args:
        trim: gives the memory back; it is called in a thread.
    """

    def __init__(self, trim: Callable[[], object] | None = None) -> None:
        self._trim = heap_trim() if trim is None else trim
        self._most = 0

    def note(self, connections: int) -> None:
        """Note how many connections there are now that another one has come."""
        self._most = max(self._most, connections)

    async def look(self, connections: int) -> None:
        """Give memory back if a crowd has gone; `connections` are left."""
        if self._most >= _CROWD and connections * _GONE < self._most:
            self._most = connections
            await asyncio.to_thread(self._trim)
