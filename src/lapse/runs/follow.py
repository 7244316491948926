"""Runs of other processes: one look at the store for all that this process's readers follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from lapse.core.background import FOREVER, Background
from lapse.runs.frames import ending, stored_frames
from lapse.runs.store import RunNews, RunStore
from lapse.runs.stream import Stream

PAGE: Final = 100
"""Events that are read from the store at once."""

_PAUSE: Final = timedelta(milliseconds=200)
_LONGEST_RETRY: Final = timedelta(seconds=2)


class Watching:
    """Streams of runs that other processes drive, filled from the store while they have readers."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._streams: dict[str, Stream] = {}
        self._seen: dict[str, str | None] = {}
        self._looking = Background(
            "following runs of other processes",
            self._look,
            first_retry=_PAUSE,
            longest_retry=_LONGEST_RETRY,
        )

    @contextmanager
    def stream(self, run_id: str) -> Iterator[Stream]:
        """Give a run's stream for as long as the block follows it; `start` comes first."""
        stream = self._streams.get(run_id)
        if stream is None:
            stream = self._streams[run_id] = Stream(run_id)
            self._seen[run_id] = None
        stream.readers += 1
        self._looking.wake()
        try:
            yield stream
        finally:
            stream.readers -= 1
            if not stream.readers and self._streams.get(run_id) is stream:
                del self._streams[run_id], self._seen[run_id]

    def wake(self) -> None:
        """Let every reader say that it lives."""
        for stream in self._streams.values():
            stream.wake()

    async def start(self) -> None:
        """Begin to look, wherever somebody follows a stream; nothing happens when it has begun."""
        await self._looking.start()

    async def close(self) -> None:
        """Let the readers go, to resume elsewhere, and stop."""
        for stream in self._streams.values():
            stream.end(None)
        await self._looking.stop()

    async def _look(self) -> timedelta:
        """Push what is new to the streams that are followed."""
        watched = {run: self._seen[run] for run, s in self._streams.items() if not s.ended}
        if not watched:
            return FOREVER
        found = await self._store.run_news(watched, limit=PAGE)
        for run_id in watched.keys() - {news.record.run_id for news in found}:
            # It went with its session.
            self._end(run_id, None)
        full = False
        for news in found:
            full |= self._show(news)
        return timedelta(0) if full else _PAUSE

    def _show(self, news: RunNews) -> bool:
        """Push what is new; return whether there may be more already."""
        run_id = news.record.run_id
        stream = self._streams.get(run_id)
        if stream is None:
            return False
        for event in news.events:
            for frame in stored_frames(event, self._seen[run_id] or run_id):
                stream.push(frame)
            self._seen[run_id] = event.id
        if len(news.events) == PAGE:
            return True
        stream.caught_up.set()
        if not news.record.in_flight:
            self._end(run_id, news)
        return False

    def _end(self, run_id: str, news: RunNews | None) -> None:
        stream = self._streams.get(run_id)
        if stream is not None:
            stream.end(
                None if news is None else ending(run_id, news.record.status, news.record.error)
            )
