"""What one reader gets of a run: first what is stored after its place, then the live rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from lapse.run_store import RunRecord
from lapse.runs.frames import ending, stored_frames
from lapse.runs.places import Place
from lapse.runs.stream import Stream
from lapse.runs.watching import PAGE
from lapse.store import EventRecord, Store


async def frames_after(
    store: Store, stream: Stream, record: RunRecord, place: Place | None
) -> AsyncIterator[bytes]:
    """Yield a run in flight after a place.

    What has left the ring comes from the store, up to the newest event that has left it, as
    often as more leaves it meanwhile.
    """
    if not stream.caught_up.is_set():
        await stream.caught_up.wait()
    index = stream.index_after(place)
    sent = _event_of(record, place)
    while index is None:
        if stream.evicted is None or stream.evicted == sent:
            index = stream.oldest
            break
        page = await _page(store, record, sent)
        if not page:
            index = stream.oldest
            break
        up_to = next((n for n, event in enumerate(page, 1) if event.id == stream.evicted), None)
        yield _bytes(page[:up_to])
        sent = page[:up_to][-1].id
    async for chunk in stream.follow(index):
        yield chunk


async def stored_after(
    store: Store, record: RunRecord, place: Place | None
) -> AsyncIterator[bytes]:
    """Yield a run that has ended after a place."""
    sent = _event_of(record, place)
    while page := await _page(store, record, sent):
        yield _bytes(page)
        sent = page[-1].id
    yield ending(record.run_id, record.status, record.error).data


def _event_of(record: RunRecord, place: Place | None) -> str | None:
    return None if place is None or place.anchor == record.run_id else place.anchor


async def _page(store: Store, record: RunRecord, after: str | None) -> Sequence[EventRecord]:
    found = await store.run_news({record.run_id: after}, limit=PAGE)
    return found[0].events if found else ()


def _bytes(events: Sequence[EventRecord]) -> bytes:
    return b"".join(frame.data for event in events for frame in stored_frames(event))
