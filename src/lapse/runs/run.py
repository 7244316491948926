"""One run in this process: what ADK says in it, and what of that is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lapse.core.errors import ShuttingDownError
from lapse.runs.cursor import place_after, place_within
from lapse.runs.frames import Frame, is_error, is_split, read_frame
from lapse.runs.store import RunRecord, RunStatus, RunStore
from lapse.runs.stream import Stream

if TYPE_CHECKING:
    from lapse.adk.events import Event

Chunks = AsyncIterator[str | bytes | memoryview]


class Run:
    """A run that this process drives, and the watcher of what it stores.

    Attributes:
        record: as it was begun.
        stream: its frames.
        begun: set once the message that it answers is stored, or it has ended.
        heard: whether the message is stored.
        stop: settled with how, and why, it is to end early.
        events: how many stored events it had.
        until: the timestamp of the last of them.
    """

    def __init__(self, record: RunRecord, store: RunStore) -> None:
        self.record = record
        self.stream = Stream(record.run_id)
        self.stream.caught_up.set()
        self.begun = asyncio.Event()
        self.heard = False
        self.stop: asyncio.Future[tuple[RunStatus, str | None]] = (
            asyncio.get_running_loop().create_future()
        )
        self.events = 0
        self.until: datetime | None = None
        self.error: Mapping[str, Any] | None = None
        self.status = RunStatus.RUNNING
        self._store = store
        self._noted: asyncio.Task[None] | None = None
        self._unsent: dict[str, bool] = {}
        self._anchor = record.run_id
        self._since_anchor = 0

    def end_early(self, status: RunStatus, reason: str | None = None) -> None:
        """Ask it to end; the first one who asks says how."""
        if not self.stop.done():
            self.stop.set_result((status, reason))

    async def before_append(self, event: Event) -> None:
        """Give an event its place: timestamps grow in the order in which a run's events are stored.

        ADK orders events by their timestamps, and so does whoever resumes the stream; those of
        parallel branches, or of one microsecond, would not tell which was stored first.
        """
        if self.status is not RunStatus.RUNNING:
            # What would not end when it was told to has no say any more.
            raise ShuttingDownError("the run of this event has ended")
        moment = datetime.fromtimestamp(event.timestamp, UTC)
        if self.until is not None and moment <= self.until:
            moment = self.until + timedelta.resolution
            event.timestamp = moment.timestamp()
        self.until = moment
        if self._noted is None:
            self._noted = asyncio.create_task(
                self._store.note_run(self.record.run_id, event.invocation_id, moment)
            )
            if event.author == "user":
                # Nobody looks for the user's words in the stream; they need not wait.
                return
        await self._noted

    def after_append(self, event: Event) -> None:
        """Remember that an event is stored: its frame's id says so."""
        self.heard = True
        self.begun.set()
        self._unsent[event.id] = is_split(event)

    async def settle(self) -> None:
        """Wait for what is on its way to the store."""
        if self._noted is not None:
            await asyncio.wait([self._noted])

    async def consume(self, chunks: Chunks) -> None:
        """Take all that ADK sends, in a task of its own that may be cancelled."""
        async for chunk in chunks:
            self._take(chunk if isinstance(chunk, str) else bytes(chunk).decode())

    def _take(self, data: str) -> None:
        said = read_frame(data)
        if is_error(said):
            self.error = said
            return
        event_id = str(said.get("id"))
        if self._unsent.get(event_id):
            self._unsent[event_id] = False
            self.stream.push(Frame.of(place_within(self._anchor), data))
            return
        if event_id not in self._unsent:
            self._since_anchor += 1
            self.stream.push(Frame.of(place_after(self._anchor, self._since_anchor), data))
            return
        del self._unsent[event_id]
        self._anchor, self._since_anchor = event_id, 0
        self.events += 1
        self.stream.push(Frame.of(event_id, data, event_id))
