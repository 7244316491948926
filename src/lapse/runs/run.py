"""One run in this process: turns what ADK sends into the frames of its stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lapse.adk.private.wire import error_in
from lapse.core.errors import ShuttingDownError
from lapse.core.keys import SessionKey
from lapse.idempotency.rules import KeyedRequest
from lapse.runs.cursor import cursor_after, cursor_within
from lapse.runs.frames import Frame, is_split, read_frame
from lapse.runs.repeats import NOTHING_KNOWN, Known
from lapse.runs.store import RunRecord, RunStatus, RunStore
from lapse.runs.stream import Stream

if TYPE_CHECKING:
    from lapse.adk.events import Event

Chunks = AsyncIterator[str | bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a run, as `Runs.begin` takes it.

    Attributes:
        key: the session of the run.
        open_chunks: checks the request and returns the chunks that `/run_sse` would send; the agent
            does not start before they are iterated. It takes the invocation whose message is stored
            already; None: the run stores the message.
        hold: is called when the run is accepted; what it returns is called when the run has ended.
        once: the request, if it has an idempotency key.
    """

    key: SessionKey
    open_chunks: Callable[[str | None], Awaitable[Chunks]]
    hold: Callable[[], Callable[[], None]] = lambda: lambda: None
    once: KeyedRequest | None = None


class Run:
    """A run that this process drives. It observes the appends of its own events.

    Attributes:
        record: the run's record from when it began.
        stream: its frames.
        begun: set once the user's message is stored, or the run has ended.
        message_stored: whether the user's message is stored.
        invocation_id: ADK's id of the run in its events; None before the first event.
        stop: a future of the status, and the reason, with which the run has to end early.
        events: how many stored events the stream has had.
        until: the timestamp of the last stored event.
        error: ADK's error object, if the run failed.
        status: RUNNING, or how the run ended.
        is_cut_off: whether the run was told to end before its agent had ended. Whatever is left of
            it can store nothing more.
    """

    def __init__(self, record: RunRecord, store: RunStore, known: Known = NOTHING_KNOWN) -> None:
        self.record = record
        self.stream = Stream(record.run_id)
        self.stream.caught_up.set()
        self.begun = asyncio.Event()
        self.message_stored = known.is_stored
        self.invocation_id = known.invocation_id
        if known.is_stored:
            self.begun.set()
        self.stop: asyncio.Future[tuple[RunStatus, str | None]] = (
            asyncio.get_running_loop().create_future()
        )
        self.events = 0
        self.until: datetime | None = None
        self.error: Mapping[str, Any] | None = None
        self.status = RunStatus.RUNNING
        self.is_cut_off = False
        self._store = store
        self._message_id = known.message_id
        self._noted: asyncio.Task[None] | None = None
        self._unsent: dict[str, bool] = {}
        self._anchor = record.run_id
        self._since_anchor = 0
        self._at_end: list[Callable[[], None]] = []
        self._has_ended = False

    def at_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the run has ended; at once if it has ended already."""
        if self._has_ended:
            callback()
        else:
            self._at_end.append(callback)

    def ended(self) -> None:
        """Call the callbacks of `at_end`."""
        self._has_ended = True
        while self._at_end:
            self._at_end.pop()()

    def end_early(self, status: RunStatus, reason: str | None = None) -> None:
        """Ask the run to end with a status and a reason; the first call wins."""
        if not self.stop.done():
            self.stop.set_result((status, reason))

    async def before_append(self, event: Event) -> bool:
        """Make an event's timestamp later than those of the run's earlier events.

        The user's message gets the id that each repeat of its request has.

        ADK orders events by their timestamps, and resuming a stream relies on that order. Without
        this, the timestamps of parallel branches, or of one microsecond, would not tell which
        event was stored first.

        A job that a tool has left behind appends after the run's end, and its event is stored as
        it is.

        Raises:
            ShuttingDownError: the run was told to end, by its time limit, by a cancellation or
                because its process stops or has lost it.
        """
        if self.is_cut_off:
            # An agent that ignores its cancellation cannot be told from its jobs: both are refused.
            raise ShuttingDownError("the run of this event was told to end; begin another")
        if self.status is not RunStatus.RUNNING:
            return False
        may_be_stored = bool(self._message_id) and event.author == "user"
        if may_be_stored:
            event.id, self._message_id = self._message_id, ""
        moment = datetime.fromtimestamp(event.timestamp, UTC)
        if self.until is not None and moment <= self.until:
            moment = self.until + timedelta.resolution
            event.timestamp = moment.timestamp()
        self.until = moment
        if self._noted is None:
            self.invocation_id = event.invocation_id
            self._noted = asyncio.create_task(
                self._store.note_run(self.record.run_id, event.invocation_id, moment)
            )
            if event.author == "user":
                # Streams do not contain the user's message, so it need not wait for the note.
                return may_be_stored
        await self._noted
        return may_be_stored

    def after_append(self, event: Event) -> None:
        """Remember that an event is stored: its frame gets the event's id."""
        if self.status is not RunStatus.RUNNING:
            return
        self.message_stored = True
        self.begun.set()
        self._unsent[event.id] = is_split(event)

    async def settle(self) -> None:
        """If the run's invocation is being recorded, wait until that has succeeded or failed.

        If it failed and an event followed, the event's append has raised the error. If none
        followed, no stream needs the record.
        """
        if self._noted is not None:
            await asyncio.gather(self._noted, return_exceptions=True)

    async def consume(self, chunks: Chunks) -> None:
        """Push every chunk that ADK sends to the stream; runs in a task that may be cancelled."""
        async for chunk in chunks:
            self._take(chunk if isinstance(chunk, str) else bytes(chunk).decode())

    def _take(self, data: str) -> None:
        said = read_frame(data)
        error = error_in(said)
        if error is not None:
            self.error = error
            return
        event_id = str(said.get("id"))
        if self._unsent.get(event_id):
            self._unsent[event_id] = False
            self.stream.push(Frame.of(cursor_within(self._anchor), data))
            return
        if event_id not in self._unsent:
            self._since_anchor += 1
            self.stream.push(Frame.of(cursor_after(self._anchor, self._since_anchor), data))
            return
        del self._unsent[event_id]
        self._anchor, self._since_anchor = event_id, 0
        self.events += 1
        self.stream.push(Frame.of(event_id, data, event_id))
