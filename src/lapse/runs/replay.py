"""The stream of one reader: stored events after its cursor first, then live frames."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import dropwhile

from lapse.runs.cursor import Cursor
from lapse.runs.follow import PAGE
from lapse.runs.frames import ending, stored_frames
from lapse.runs.store import RunRecord, RunStore
from lapse.runs.stream import Stream
from lapse.store.records import EventRecord


async def frames_after(
    store: RunStore, stream: Stream, record: RunRecord, cursor: Cursor | None
) -> AsyncIterator[bytes]:
    """Yield the stream of a run in flight after a cursor, or from its start.

    If the ring buffer does not hold the cursor, stored events are sent until it holds the last
    one that was sent. A reader that comes from another replica may have an event that this
    stream does not have yet.
    """
    await stream.caught_up.wait()
    while (index := stream.index_after(cursor)) is None:
        arrived = stream.next_frame()
        page = await _page(store, record, cursor)
        if page:
            yield _bytes(record, page, cursor)
            cursor = Cursor.of_event(page[-1].id)
        elif stream.ended:
            index = stream.newest
            break
        else:
            await arrived.wait()
    async for chunk in stream.follow(index):
        yield chunk


async def stored_events(store: RunStore, record: RunRecord) -> AsyncIterator[EventRecord]:
    """Yield the agent's events in a run, in the order in which they were stored."""
    cursor = None
    while page := await _page(store, record, cursor):
        for event in page:
            yield event
        cursor = Cursor.of_event(page[-1].id)


async def stored_after(
    store: RunStore, record: RunRecord, cursor: Cursor | None
) -> AsyncIterator[bytes]:
    """Yield the stream of an ended run after a cursor, or from its start."""
    while page := await _page(store, record, cursor):
        yield _bytes(record, page, cursor)
        cursor = Cursor.of_event(page[-1].id)
    yield ending(record.run_id, record.status, record.error).data


async def _page(store: RunStore, record: RunRecord, cursor: Cursor | None) -> Sequence[EventRecord]:
    after = None if cursor is None or cursor.anchor == record.run_id else cursor.anchor
    found = await store.run_news({record.run_id: after}, limit=PAGE)
    return found[0].events if found else ()


def _bytes(record: RunRecord, events: Sequence[EventRecord], cursor: Cursor | None) -> bytes:
    anchors = [record.run_id if cursor is None else cursor.anchor, *(event.id for event in events)]
    frames = [
        frame
        for event, anchor in zip(events, anchors, strict=False)
        for frame in stored_frames(event, anchor)
    ]
    if cursor is not None and cursor.is_within_event:
        frames = list(dropwhile(lambda frame: frame.event_id is None, frames))
    return b"".join(frame.data for frame in frames)
