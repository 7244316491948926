"""A ring buffer of a run's newest frames, which any number of readers follow.

The frames are kept once, whatever the number of readers, and each reader has its own position. When
the ring is full, the oldest frames leave it. A reader that needs a stored event which has left the
ring gets it from the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Final

from lapse.runs.cursor import Cursor
from lapse.runs.frames import HEARTBEAT, Frame

FRAMES_KEPT: Final = 2048
BYTES_KEPT: Final = 4 * 1024 * 1024
_WRITTEN_TOGETHER: Final = 64


class LaggedError(Exception):
    """A reader was so slow that frames which it has not had have left the ring; it may resume."""


class Stream:
    """The ring buffer of one run's newest frames.

    Attributes:
        caught_up: set once the ring has had every event that was stored before it was made.
        readers: how many readers follow a stream of another process; see `RemoteStreams`.
    """

    def __init__(self, run_id: str) -> None:
        self.caught_up = asyncio.Event()
        self.readers = 0
        self._run_id = run_id
        self._evicted: str | None = None  # the newest stored event that has left the ring
        self._frames: deque[Frame] = deque()
        self._base = 0
        self._bytes = 0
        self._ended = False
        self._last: Frame | None = None
        self._news = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Return whether no frame will come any more."""
        return self._ended

    def push(self, frame: Frame) -> None:
        """Add a frame, and remove the oldest ones if the ring is full."""
        self._frames.append(frame)
        self._bytes += len(frame.data)
        # The newest frame stays, whatever its size.
        while len(self._frames) > 1 and (
            len(self._frames) > FRAMES_KEPT or self._bytes > BYTES_KEPT
        ):
            gone = self._frames.popleft()
            self._base += 1
            self._bytes -= len(gone.data)
            self._evicted = gone.event_id or self._evicted
        self.wake()

    def end(self, last: Frame | None) -> None:
        """End the stream with the frame `last`, or, with None, without one: readers then resume."""
        if not self._ended:
            self._ended, self._last = True, last
            self.caught_up.set()
            self.wake()

    def wake(self) -> None:
        """Wake every waiting reader; a reader that finds no new frame sends a heartbeat."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def next_frame(self) -> asyncio.Event:
        """Return an event that is set by the next `push`, `end` or `wake`."""
        return self._news

    def index_after(self, cursor: Cursor | None) -> int | None:
        """Return the index after a cursor, or None if the ring does not hold the cursor."""
        if cursor is None or cursor.anchor == self._run_id:
            # While no stored event has left the ring, only partial frames are missing.
            index = self._base if self._evicted is None else None
        elif cursor.anchor == self._evicted:
            index = self._base
        else:
            index = self._after(lambda frame: frame.event_id == cursor.anchor)
        if cursor is None or index is None:
            return index
        if cursor.is_within_event:
            rest = islice(self._frames, index - self._base, None)
            return next((n for n, one in enumerate(rest, index) if one.event_id), None)
        exact = self._after(lambda frame: frame.id == cursor.text)
        return index if exact is None else exact

    def _after(self, is_it: Callable[[Frame], bool]) -> int | None:
        backwards = enumerate(reversed(self._frames))
        return next((self.newest - back for back, frame in backwards if is_it(frame)), None)

    @property
    def newest(self) -> int:
        """Return the index after the newest frame in the ring."""
        return self._base + len(self._frames)

    async def follow(self, index: int) -> AsyncIterator[bytes]:
        """Yield the frames from an index on, several at a time, and then live frames.

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
                if index == self.newest and not self._ended:
                    yield HEARTBEAT
