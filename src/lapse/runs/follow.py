"""Streams of runs of other processes, filled by one poll of the store for all of them."""

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
"""The most events of a run that one statement reads."""

_POLL_INTERVAL: Final = timedelta(milliseconds=200)
_LONGEST_RETRY: Final = timedelta(seconds=2)


class RemoteStreams:
    """Streams of runs that other processes drive, filled from the store while they have readers.

    They have the stored events of a run; partial events do not reach other processes.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._streams: dict[str, Stream] = {}
        self._seen: dict[str, str | None] = {}
        self._polling = Background(
            "following runs of other processes",
            self._poll,
            first_retry=_POLL_INTERVAL,
            longest_retry=_LONGEST_RETRY,
        )

    @contextmanager
    def stream(self, run_id: str) -> Iterator[Stream]:
        """Provide the stream of a run inside a `with` block; call `start` before."""
        stream = self._streams.get(run_id)
        if stream is None:
            stream = self._streams[run_id] = Stream(run_id)
            self._seen[run_id] = None
        stream.readers += 1
        self._polling.wake()
        try:
            yield stream
        finally:
            stream.readers -= 1
            if not stream.readers and self._streams.get(run_id) is stream:
                del self._streams[run_id], self._seen[run_id]

    def wake(self) -> None:
        """Let every reader that waits send a heartbeat."""
        for stream in self._streams.values():
            stream.wake()

    async def start(self) -> None:
        """Start to poll the store while streams have readers; a no-op if it has been started."""
        await self._polling.start()

    async def close(self) -> None:
        """Stop polling and end all streams; their readers may resume at another process."""
        for stream in self._streams.values():
            stream.end(None)
        await self._polling.stop()

    async def _poll(self) -> timedelta:
        """Push the new events of the followed runs to their streams."""
        watched = {run: self._seen[run] for run, s in self._streams.items() if not s.ended}
        if not watched:
            return FOREVER
        found = await self._store.run_news(watched, limit=PAGE)
        for run_id in watched.keys() - {news.record.run_id for news in found}:
            # The run was deleted with its session.
            self._end(run_id, None)
        full = False
        for news in found:
            full |= self._push(news)
        return timedelta(0) if full else _POLL_INTERVAL

    def _push(self, news: RunNews) -> bool:
        """Push new events to a stream; return whether the store may have more of them."""
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
