"""One stream, many readers: the last frames of a run, which each reader follows at its own pace.

The frames are kept once, whatever the number of readers. Those that are stored as events may leave
the ring when it is full: a reader that comes later has them from the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Final

from lapse.runs.cursor import Place
from lapse.runs.frames import HEARTBEAT, Frame

FRAMES_KEPT: Final = 2048
BYTES_KEPT: Final = 4 * 1024 * 1024
_WRITTEN_TOGETHER: Final = 64


class LaggedError(Exception):
    """A reader was so slow that frames it had not had yet are gone; it may resume."""


class Stream:
    """The ring of one run's newest frames.

    Attributes:
        caught_up: set once everything that was stored when the stream was made is in it.
        readers: how many follow it.
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
        """Return whether nothing will come any more."""
        return self._ended

    def push(self, frame: Frame) -> None:
        """Add a frame, and let the oldest ones go."""
        self._frames.append(frame)
        self._bytes += len(frame.data)
        # The newest stays, whatever its size.
        while len(self._frames) > 1 and (
            len(self._frames) > FRAMES_KEPT or self._bytes > BYTES_KEPT
        ):
            gone = self._frames.popleft()
            self._base += 1
            self._bytes -= len(gone.data)
            self._evicted = gone.event_id or self._evicted
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

    def next_frame(self) -> asyncio.Event:
        """Return what is set when something more has happened."""
        return self._news

    def index_after(self, place: Place | None) -> int | None:
        """Return where to go on after a place; None where the ring does not hold it."""
        if place is None or place.anchor == self._run_id:
            # What has left the ring without being stored was partial.
            index = self._base if self._evicted is None else None
        elif place.anchor == self._evicted:
            index = self._base
        else:
            index = self._after(lambda frame: frame.event_id == place.anchor)
        if place is None or index is None:
            return index
        if place.is_half:
            rest = islice(self._frames, index - self._base, None)
            return next((n for n, one in enumerate(rest, index) if one.event_id), None)
        exact = self._after(lambda frame: frame.id == place.text)
        return index if exact is None else exact

    def _after(self, is_it: Callable[[Frame], bool]) -> int | None:
        backwards = enumerate(reversed(self._frames))
        return next((self.newest - back for back, frame in backwards if is_it(frame)), None)

    @property
    def newest(self) -> int:
        """Return the index after the newest frame in the ring."""
        return self._base + len(self._frames)

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
                if index == self.newest and not self._ended:
                    yield HEARTBEAT
