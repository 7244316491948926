"""What retention tells the webhook, on every store."""

import json
from datetime import timedelta

import pytest

from backends import HOUR, T0, create, key, message, use
from lapse.core.clock import iso
from lapse.core.lifecycle import Cause
from lapse.retention.policy import parse_policy
from lapse.webhooks.rules import EventKind

DAY = timedelta(days=1)
IDLE = T0 + 30 * DAY
PURGED = IDLE + 100 * DAY
POLICY = parse_policy('[default]\nidle = "30d"\narchive = "100d"\n')
SECRET = "the words of the user"


async def taken(store, now):
    return sorted(await store.at(now).take_webhooks(1000), key=lambda event: event.number)


def told(event):
    body = json.loads(event.body)
    assert body["type"] == event.kind
    assert SECRET.encode() not in event.body
    return body["data"]


async def archived(store, *names):
    for name in names:
        revision = await create(store, name, state={"secret": SECRET})
        await store.at(T0).append(key(name), message(text=SECRET), revision)
    done = await store.at(IDLE).archive_sessions([key(name) for name in names], POLICY)
    assert done.value.archived == len(names)
    return revision


async def test_without_a_webhook_nothing_is_written(store):
    await store.at(T0).confirm_retention(POLICY, by="op")
    await archived(store, "s1", "s2")
    await store.at(IDLE).resurrect(key(), cause=Cause.REQUEST)
    await store.at(PURGED).purge_archived(10)
    assert await taken(store, PURGED) == []


async def test_a_batch_is_an_event_for_each_session(store):
    """Archived and purged. Seen to fail with a statement that tells of the first one only."""
    await store.at(T0).announce_webhook()
    names = [f"s{number}" for number in range(5)]
    await archived(store, *names)
    events = await taken(store, IDLE)
    assert [event.kind for event in events] == [EventKind.ARCHIVED] * 5
    assert {event.key for event in events} == {key(name) for name in names}
    data = told(events[0])
    assert set(data) == {
        *("appName", "userId", "sessionId", "createdAt", "resurrections"),
        *("archivedAt", "restorableUntil"),
    }
    await store.settle_webhooks([event.number for event in events])
    assert (await store.at(PURGED).purge_archived(10)).value == 5
    events = await taken(store, PURGED)
    assert [event.kind for event in events] == [EventKind.PURGED] * 5
    assert {event.key for event in events} == {key(name) for name in names}
    assert {(event.at, event.created_at) for event in events} == {(PURGED, T0)}
    assert "purgedAt" in told(events[0])


@pytest.mark.parametrize("cause", ["request", "message"])
async def test_a_restore_is_an_event(store, cause):
    """Seen to fail on SQLite without its statement."""
    await store.at(T0).announce_webhook()
    await use(store)
    read = await store.at(T0).read(key())
    await store.at(IDLE).archive_sessions([key()], POLICY)
    later = IDLE + HOUR
    if cause == "request":
        await store.at(later).resurrect(key(), cause=Cause.REQUEST)
        await store.at(later).resurrect(key(), cause=Cause.REQUEST)
    else:
        await store.at(later).append(key(), message("m2", at=later), read.revision)
    _, event = await taken(store, later)
    assert (event.kind, event.key, event.at) == (EventKind.RESTORED, key(), later)
    assert "restoredAt" in told(event)


async def test_a_confirmation_is_an_event_and_names_the_policy(store):
    await store.at(T0).announce_webhook()
    assert await store.at(T0).confirm_retention(POLICY, by="op")
    assert not await store.at(T0 + HOUR).confirm_retention(POLICY, by="op")
    (event,) = await taken(store, T0 + HOUR)
    assert event.kind is EventKind.CONFIRMED
    assert told(event) == {"policy": POLICY.digest, "confirmedAt": iso(T0)}


async def test_what_is_not_archived_is_no_event(store):
    """Not due, deleted by its owner, or expired."""
    await store.at(T0).announce_webhook()
    await use(store)
    await store.at(IDLE - HOUR).archive_sessions([key()], POLICY)
    assert await taken(store, IDLE) == []
    await store.at(IDLE).archive_sessions([key()], POLICY)
    await store.at(IDLE).delete(key())
    assert [event.kind for event in await taken(store, IDLE)] == [EventKind.ARCHIVED]
