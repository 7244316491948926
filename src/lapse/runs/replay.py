"""What one reader gets of a run: first what is stored after its place, then the live rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import dropwhile

from lapse.runs.cursor import Place
from lapse.runs.follow import PAGE
from lapse.runs.frames import ending, stored_frames
from lapse.runs.store import RunRecord, RunStore
from lapse.runs.stream import Stream
from lapse.store.records import EventRecord


async def frames_after(
    store: RunStore, stream: Stream, record: RunRecord, place: Place | None
) -> AsyncIterator[bytes]:
    """Yield a run in flight after a place.

    Where the ring does not hold the place, stored events are sent until it holds the last of
    them. A reader from another replica may have seen an event before this stream has it.
    """
    await stream.caught_up.wait()
    while (index := stream.index_after(place)) is None:
        arrived = stream.next_frame()
        page = await _page(store, record, place)
        if page:
            yield _bytes(record, page, place)
            place = Place.of_event(page[-1].id)
        elif stream.ended:
            index = stream.newest
            break
        else:
            await arrived.wait()
    async for chunk in stream.follow(index):
        yield chunk


async def stored_after(
    store: RunStore, record: RunRecord, place: Place | None
) -> AsyncIterator[bytes]:
    """Yield a run that has ended after a place."""
    while page := await _page(store, record, place):
        yield _bytes(record, page, place)
        place = Place.of_event(page[-1].id)
    yield ending(record.run_id, record.status, record.error).data


async def _page(store: RunStore, record: RunRecord, place: Place | None) -> Sequence[EventRecord]:
    after = None if place is None or place.anchor == record.run_id else place.anchor
    found = await store.run_news({record.run_id: after}, limit=PAGE)
    return found[0].events if found else ()


def _bytes(record: RunRecord, events: Sequence[EventRecord], place: Place | None) -> bytes:
    anchors = [record.run_id if place is None else place.anchor, *(event.id for event in events)]
    frames = [
        frame
        for event, anchor in zip(events, anchors, strict=False)
        for frame in stored_frames(event, anchor)
    ]
    if place is not None and place.is_half:
        frames = list(dropwhile(lambda frame: frame.event_id is None, frames))
    return b"".join(frame.data for frame in frames)
