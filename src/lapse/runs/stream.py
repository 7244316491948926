"""One stream, many readers: the last frames of a run, which each reader follows at its own pace.

The frames are kept once, whatever the number of readers. Those that are stored as events may leave
the ring when it is full: a reader that comes later has them from the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice
from typing import Final

from lapse.runs.frames import HEARTBEAT, Frame
from lapse.runs.places import Place

FRAMES_KEPT: Final = 2048
BYTES_KEPT: Final = 4 * 1024 * 1024
_WRITTEN_TOGETHER: Final = 64


class LaggedError(Exception):
    """A reader was so slow that frames it had not had yet are gone; it may resume."""


class Stream:
    """The ring of one run's newest frames.

    Attributes:
        evicted: the newest stored event whose frame has left the ring.
        caught_up: set once everything that was stored when the stream was made is in it.
        readers: how many follow it.
    """

    def __init__(self) -> None:
        self.evicted: str | None = None
        self.caught_up = asyncio.Event()
        self.readers = 0
        self._frames: deque[Frame] = deque()
        self._base = 0
        self._bytes = 0
        self._ended = False
        self._last: Frame | None = None
        self._news = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Return whether nothing will come any more."""
        return self._ended

    def push(self, frame: Frame) -> None:
        """Add a frame, and let the oldest ones go."""
        self._frames.append(frame)
        self._bytes += len(frame.data)
        while len(self._frames) > FRAMES_KEPT or self._bytes > BYTES_KEPT:
            gone = self._frames.popleft()
            self._base += 1
            self._bytes -= len(gone.data)
            self.evicted = gone.event_id or self.evicted
        self.wake()

    def end(self, last: Frame | None) -> None:
        """Say that nothing comes after `last`; None leaves the readers to resume elsewhere."""
        if not self._ended:
            self._ended, self._last = True, last
            self.caught_up.set()
            self.wake()

    def wake(self) -> None:
        """Let every reader that waits look; one that finds nothing says that it lives."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def index_after(self, place: Place | None) -> int | None:
        """Return where to go on after a place; None where the store has to be asked first."""
        if place is None:
            return 0 if self._base == 0 else None
        anchored = None
        for back, frame in enumerate(reversed(self._frames)):
            if frame.id == place.text:
                return self._base + len(self._frames) - back
            if frame.event_id == place.anchor and anchored is None:
                anchored = self._base + len(self._frames) - back
        return anchored

    @property
    def oldest(self) -> int:
        """Return the index of the oldest frame in the ring."""
        return self._base

    async def follow(self, index: int) -> AsyncIterator[bytes]:
        """Yield what is there from an index on, as much as fits together, then the live rest.

        Raises:
            LaggedError: the frame at the index has left the ring.
        """
        while True:
            news = self._news
            if index < self._base:
                raise LaggedError
            start = index - self._base
            found = [frame.data for frame in islice(self._frames, start, start + _WRITTEN_TOGETHER)]
            if found:
                index += len(found)
                yield b"".join(found)
            elif self._ended:
                if self._last is not None:
                    yield self._last.data
                return
            else:
                await news.wait()
                if index == self._base + len(self._frames) and not self._ended:
                    yield HEARTBEAT
